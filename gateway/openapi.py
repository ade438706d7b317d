"""The OpenAPI document: what the routes say of themselves, and the schemas they refer to."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from gateway.dialects.route import KEY_SCHEME
from gateway.dialects.schema import EmbeddingsBody, ErrorAnswer, OpenRouterBody, Ready

REFERRED = (EmbeddingsBody, OpenRouterBody, ErrorAnswer, Ready)
"""Models that routes name by reference only, so that FastAPI does not collect them."""

REFERENCE = "#/components/schemas/{model}"

KEYS = "A key that this server's operator has given out; where none are configured, any key or none will do."

DESCRIPTION = """Embeddings of texts and images over the APIs that clients already speak: OpenAI's and that of NVIDIA's
embedding NIM under `/v1`, OpenRouter's under `/api/v1`.

Every answer carries `x-request-id`, the client's own if it sends a plain one. Answers with vectors carry
`x-total-time`, `x-queue-time` and `x-inference-time` in milliseconds, and `x-compute-tokens`.
"""


def describe_with_schemas(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What to put in place of `app.openapi`.

    Args:
        app: with all its routes.

    Returns:
        A function that makes the document once.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            _, definitions = models_json_schema([(model, "validation") for model in REFERRED], ref_template=REFERENCE)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            components["securitySchemes"] = {KEY_SCHEME: {"type": "http", "scheme": "bearer", "description": KEYS}}
            app.openapi_schema = document
        return app.openapi_schema

    return openapi
