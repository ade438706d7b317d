"""Schemathesis against our own OpenAPI document: thousands of requests, right and wrong ones, over the fake engine.

No answer is a 5xx, none departs from its schema, status list or content type, and nothing that the document forbids is
taken. What it allows may still be refused: sizes and limits belong to the model.
"""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.openapi import from_asgi

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import IMAGE_MODEL, IMAGE_RANK_MODEL, RANK_MODEL, TEXT_MODEL, FakeEngine

EMBEDDING_MODELS = (IMAGE_MODEL, TEXT_MODEL)
RANKING_MODELS = (IMAGE_RANK_MODEL, RANK_MODEL)
EXAMPLES_PER_ROUTE = 250

schema = from_asgi(
    "/openapi.json", create_app(Settings(image_urls="off"), FakeEngine(served=EMBEDDING_MODELS + RANKING_MODELS))
)
schema.config.seed = 1


def name_served_model(body: Any) -> None:
    """Most invented ids end at a 404: let the others of a body's fields be looked at."""
    if isinstance(body, dict) and isinstance(model := body.get("model"), str) and len(model) % 4:
        models = RANKING_MODELS if "query" in body else EMBEDDING_MODELS
        body["model"] = models[len(model) % 2].public_id


@pytest.mark.slow
@schema.exclude(path="/v1/metrics/triton").parametrize()  # there is no Triton here whose page it could show
@settings(
    max_examples=EXAMPLES_PER_ROUTE,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_route_behaves_as_documented(case: schemathesis.Case) -> None:
    name_served_model(case.body)
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
