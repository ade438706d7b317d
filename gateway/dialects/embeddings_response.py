"""The answer to an embeddings request, as all dialects have it."""

from typing import Any

import orjson
from starlette.responses import Response

from gateway.embeddings import EmbeddingsResult


def render_embeddings(result: EmbeddingsResult) -> dict[str, Any]:
    """The JSON object, with NumPy vectors still in it."""
    usage = result.usage
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(result.vectors)
        ],
        "model": result.model.public_id,
        "usage": {
            "prompt_tokens": usage.total_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"text_tokens": usage.text_tokens, "image_tokens": usage.image_tokens},
        },
    }


def json_response(content: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An HTTP response of a JSON value; vectors are written straight from their arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status_code, headers, media_type="application/json")
