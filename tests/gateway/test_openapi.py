"""The OpenAPI document against what the routes take and answer."""

import hashlib
import re
from typing import Any, get_args

import httpx
import pytest
from pydantic import BaseModel

from gateway.app import create_app
from gateway.dialects import schema
from gateway.dialects.documentation import EXAMPLES
from gateway.dialects.embeddings_request import EMBEDDING_TYPES, ENCODING_FORMATS, FIELDS, MODALITIES, TRUNCATIONS
from gateway.dialects.openrouter import IGNORED_FIELDS
from gateway.items import Modality, Truncate
from gateway.postprocess import EmbeddingType, EncodingFormat
from gateway.settings import Settings
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.test_openai_nim import DATA_URL, post


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/openapi.json")).json()


def test_bodies_describe_exactly_the_fields_taken() -> None:
    assert schema.EmbeddingsBody.model_fields.keys() == FIELDS
    assert schema.OpenRouterBody.model_fields.keys() == FIELDS | IGNORED_FIELDS | {"provider"}


def test_choices_are_those_of_the_domain() -> None:
    assert set(MODALITIES) == set(get_args(Modality))
    assert set(EMBEDDING_TYPES) == set(get_args(EmbeddingType))
    assert set(ENCODING_FORMATS) == set(get_args(EncodingFormat))
    assert set(TRUNCATIONS) == set(get_args(Truncate))


def test_described_limit_of_items_is_the_default_one() -> None:
    forms = schema.EmbeddingsBody.model_json_schema()["properties"]["input"]["anyOf"]
    assert {form["maxItems"] for form in forms if "maxItems" in form} == {Settings().max_items}


async def test_every_reference_resolves(document: dict[str, Any], client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    references = set(re.findall(r"#/components/schemas/([A-Za-z0-9_-]+)", text))
    assert references <= document["components"]["schemas"].keys()


async def test_embeddings_routes_document_every_error(document: dict[str, Any]) -> None:
    shared = {"200", "400", "401", "402", "404", "408", "413", "415", "429", "500", "504"}
    assert document["paths"]["/v1/embeddings"]["post"]["responses"].keys() == shared | {"503"}
    assert document["paths"]["/api/v1/embeddings"]["post"]["responses"].keys() == shared | {"529"}


async def test_every_field_of_the_body_is_described(document: dict[str, Any]) -> None:
    for name, field in document["components"]["schemas"]["EmbeddingsBody"]["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
async def test_examples_work(client: httpx.AsyncClient, path: str, name: str) -> None:
    response = await client.post(path, json=EXAMPLES[name]["value"])
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models", schema.ModelList),
        ("/v1/health/live", schema.Live),
        ("/v1/health/ready", schema.Ready),
        ("/v1/version", schema.Version),
        ("/api/v1/models", schema.OpenRouterModelList),
        ("/no/such/route", schema.ErrorAnswer),
    ],
)
async def test_answers_are_as_described(client: httpx.AsyncClient, path: str, model: type[BaseModel]) -> None:
    model.model_validate_json((await client.get(path)).content, strict=True, extra="forbid")


async def test_vectors_are_as_described(client: httpx.AsyncClient) -> None:
    answer = await post(client, input=["a", DATA_URL])
    schema.EmbeddingsAnswer.model_validate_json(answer.content, strict=True, extra="forbid")
    body = {"model": answer.json()["model"], "input": "a", "encoding_format": "base64"}
    answer = await client.post("/api/v1/embeddings", json=body)
    schema.OpenRouterAnswer.model_validate_json(answer.content, strict=True, extra="forbid")


@pytest.mark.parametrize("keys", [False, True])
async def test_routes_that_ask_for_keys_say_so(engine: FakeEngine, keys: bool) -> None:
    settings = Settings(api_keys=f"ops {hashlib.sha256(b'secret').hexdigest()}" if keys else "")
    document = create_app(settings, engine).openapi()
    [scheme] = document["components"]["securitySchemes"]
    asked = [{scheme: []}] if keys else [{scheme: []}, {}]
    operations = {path: operation for path, methods in document["paths"].items() for operation in methods.values()}
    assert operations["/v1/embeddings"]["security"] == operations["/api/v1/models"]["security"] == asked
    assert "security" not in operations["/v1/health/live"]
