"""The OpenAPI document, and Swagger UI at `/docs`. Shapes come from the types that bodies and responses are made of."""

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from gateway import errors
from gateway.api.context import Dialect
from gateway.api.error_responses import STATUS_OF_ERROR, ErrorBody
from gateway.api.middleware import KEY_SCHEME
from gateway.settings import Settings

DOCS_PATH = "/docs"
ASSETS_PATH = "/docs/assets"

BODIES = {"EmbeddingsBody", "CompatibleBody", "OpenRouterBody"}

SCHEMA_PATH = "#/components/schemas/{name}"

KEYS = "A key that this server's operator has issued; where none are configured, any key or none will do."

DESCRIPTION = """Embeddings and rankings of texts and images over the APIs that clients already speak: OpenAI's and
those of NVIDIA's NIMs under `/v1`, OpenRouter's under `/api/v1`, Cohere's at `/v2/embed` and `/v2/rerank`, and that of
Hugging Face's Text Embeddings Inference at `/embed` and `/rerank`.

Every response carries `x-request-id`, the client's own if it sends a plain one. Responses with vectors or scores carry
`x-total-time`, `x-queue-time` and `x-inference-time` in milliseconds, and `x-compute-tokens`.
"""

ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

EXAMPLES: dict[str, dict[str, Any]] = {
    "query": {
        "summary": "A text query, as for the embedding NIM",
        "value": {
            "input": ["What is NVIDIA?"],
            "model": "nvidia/llama-nemotron-embed-vl-1b-v2",
            "input_type": "query",
            "modality": "text",
            "embedding_type": "float",
            "encoding_format": "float",
        },
    },
    "texts": {
        "summary": "Texts, as for OpenAI",
        "value": {
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "input": ["The cat sat on the mat", "Dogs are loyal companions"],
        },
    },
    "image and text": {
        "summary": "An image with text, as for OpenRouter",
        "value": {
            "model": "nvidia/llama-nemotron-embed-vl-1b-v2",
            "input": [
                {
                    "content": [
                        {"type": "text", "text": "A scenic boardwalk through a green meadow"},
                        {"type": "image_url", "image_url": {"url": ONE_PIXEL}},
                    ]
                }
            ],
            "encoding_format": "float",
        },
    },
}

ALWAYS = (errors.UnauthorizedError, errors.QuotaSpentError, errors.RateLimitedError, errors.GatewayError)
CALLING_ENGINE = (*ALWAYS, errors.OverloadedError, errors.EngineUnavailableError, errors.DeadlineError)
EMBEDDING = (
    errors.InvalidRequestError,
    errors.NotFoundError,
    errors.FingerprintError,
    errors.RequestTimeoutError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    *CALLING_ENGINE,
)


class SchemaRegistry:
    """Collects the types that routes refer to; the document's `components` are made from them."""

    def __init__(self) -> None:
        self._types: dict[str, type] = {"ErrorBody": ErrorBody}

    def reference(self, kind: type) -> dict[str, str]:
        """Return a JSON reference to a type's schema."""
        self._types[kind.__name__] = kind
        return {"$ref": SCHEMA_PATH.format(name=kind.__name__)}

    def components(self) -> dict[str, Any]:
        """Return the schemas of all types, by name."""
        _, components = msgspec.json.schema_components(self._types.values(), ref_template=SCHEMA_PATH)
        return components


SCHEMAS = SchemaRegistry()


def json_body(*kinds: type, examples: dict[str, Any] = EXAMPLES) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads a body of one of these types."""
    content = content_of(*kinds)
    content["application/json"]["examples"] = examples
    return {"requestBody": {"required": True, "content": content}}


def query_parameters(schema: dict[str, Any], **descriptions: str) -> dict[str, Any]:
    """Return the `openapi_extra` of a route with optional query parameters, all of one schema."""
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
            for name, description in descriptions.items()
        ]
    }


def path_parameter(name: str, description: str) -> dict[str, Any]:
    """Return the `openapi_extra` of a route whose path has a parameter, which may contain slashes."""
    schema = {"type": "string", "minLength": 1}
    return {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": schema, "description": description}]
    }


def json_responses(dialect: Dialect, kind: type, *errors: type[errors.GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route: its type, and errors, of which those of one status are combined.

    Args:
        dialect: Of the route; it may override statuses.
        kind: Of the response.
        errors: Those that the route may end with.
    """
    return {200: {"description": "Success.", "content": content_of(kind)}} | error_responses(dialect, *errors)


def error_responses(dialect: Dialect, *kinds: type[errors.GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of errors; those of one status are combined."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = STATUS_OF_ERROR[kind]
        code = dialect.status_overrides.get(status.code, status.code)
        before = described[code]["description"] + " " if code in described else ""
        described[code] = {"description": before + status.description, "content": content_of(ErrorBody)}
    return described


def content_of(*kinds: type) -> dict[str, Any]:
    """Return the OpenAPI `content` of JSON of one of these types."""
    references = [SCHEMAS.reference(kind) for kind in kinds]
    return {"application/json": {"schema": references[0] if len(kinds) == 1 else {"anyOf": references}}}


def array_of(kind: type) -> dict[str, Any]:
    """Return the OpenAPI `content` of a JSON array of a type."""
    return {"application/json": {"schema": {"type": "array", "items": SCHEMAS.reference(kind)}}}


def add_openapi(app: FastAPI, settings: Settings) -> None:
    """Serve the OpenAPI document at `/openapi.json`, and Swagger UI over it from local files, without internet."""
    app.openapi = build_openapi(app, settings)  # type: ignore[method-assign]
    with as_file(files("fastapi_offline") / "static") as folder:
        app.mount(ASSETS_PATH, StaticFiles(directory=folder))

    async def show_docs(request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=app.title,
            swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS_PATH}/favicon.png",
        )

    app.add_route(DOCS_PATH, show_docs, include_in_schema=False)


def build_openapi(app: FastAPI, settings: Settings) -> Callable[[], dict[str, Any]]:
    """Return a replacement for `app.openapi`, which makes the document once.

    Args:
        app: With all its routes.
        settings: Its limits.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            schemas = SCHEMAS.components()
            for name in BODIES & schemas.keys():
                separate_forms(schemas[name]["properties"]["input"], settings.max_items)
            if compatible := schemas.get("CompatibleBody"):
                compatible["oneOf"] = [{"required": ["input"]}, {"required": ["messages"]}]
            document["components"] = {
                "schemas": schemas,
                "securitySchemes": {KEY_SCHEME: {"type": "http", "scheme": "bearer", "description": KEYS}},
            }
            app.openapi_schema = document
        return app.openapi_schema

    return openapi


def separate_forms(schema: dict[str, Any], max_items: int) -> None:
    """Say what the parser's one type for arrays cannot: which forms of `input` exclude each other, and their limits.

    Whole floats as token ids need no form: JSON Schema counts them as integers.

    Args:
        schema: Of the field, as made from its type; changed in place.
        max_items: Limit of this server.
    """
    string, array = schema["anyOf"]
    text, token_id, _, token_ids, block = array["items"]["anyOf"]
    token_ids["items"] = token_id
    size = {"minItems": 1, "maxItems": max_items}
    schema["anyOf"] = [
        string,
        {"type": "array", "items": {"anyOf": [text, block]}, **size},
        {"type": "array", "items": token_id, "minItems": 1},
        {"type": "array", "items": token_ids, **size},
    ]
