"""What the routes say of themselves in the OpenAPI document: bodies with examples, and errors by status."""

from typing import Any

from pydantic import BaseModel

from gateway import errors
from gateway.dialect import Dialect
from gateway.error_responses import STATUS_OF_ERROR

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
ASKING_ENGINE = (*ALWAYS, errors.OverloadedError, errors.EngineUnavailableError, errors.DeadlineError)
EMBEDDING = (
    errors.InvalidRequestError,
    errors.NotFoundError,
    errors.RequestTimeoutError,
    errors.TooLargeError,
    errors.UnsupportedMediaTypeError,
    *ASKING_ENGINE,
)


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a body itself.

    Args:
        model: that describes the body; among `openapi.REFERRED`.
    """
    content = {"schema": reference(model.__name__), "examples": EXAMPLES}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def query_parameters(**descriptions: str) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads whole numbers from its query string."""
    integer = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": integer, "description": description}
            for name, description in descriptions.items()
        ]
    }


def error_responses(dialect: Dialect, *kinds: type[errors.GatewayError]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of errors, from the table of statuses; kinds of one status are put together.

    Args:
        dialect: of the route; it may have statuses of its own.
        kinds: that the route may answer.
    """
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = STATUS_OF_ERROR[kind]
        code = dialect.statuses.get(status.code, status.code)
        before = described[code]["description"] + " " if code in described else ""
        described[code] = {
            "description": before + status.description,
            "content": {"application/json": {"schema": reference("ErrorAnswer")}},
        }
    return described


def reference(name: str) -> dict[str, str]:
    """A JSON reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
