"""Responses published in the documentation of NIM and OpenRouter, compared with those of a real server."""

from typing import Any

import httpx
import pytest

from tests.end_to_end.samples import IMAGE_URL, MINILM, TINY
from tests.service import Service

pytestmark = pytest.mark.triton

DIMENSIONS = 96
QUERY = {
    "input": ["What is NVIDIA?"],
    "model": TINY,
    "input_type": "query",
    "modality": "text",
    "embedding_type": "float",
    "encoding_format": "float",
}
ERROR_TABLE: dict[str, tuple[dict[str, Any], int, str]] = {
    "Empty input array": ({"input": []}, 400, "input must not be empty"),
    "Blank input string": ({"input": [" "]}, 400, "input[0] must not be blank or empty"),
    "Unknown model": (
        {"model": "wrong-model"},
        404,
        f"model 'wrong-model' not found; available: '{TINY}', '{MINILM}'",
    ),
    "Invalid modality": (
        {"modality": "bogus"},
        400,
        "modality must be one of 'text', 'image', 'text_image'; got 'bogus'",
    ),
    'Image with input_type: "query"': (
        {"input": [IMAGE_URL], "modality": "image"},
        400,
        'input_type="query" is not supported with images; the VLM model processes images as passages only. '
        'Use input_type="passage" or omit input_type.',
    ),
    "Invalid encoding_format": (
        {"encoding_format": "bad"},
        400,
        "encoding_format must be one of 'float', 'base64'; got 'bad'",
    ),
    "Invalid embedding_type": (
        {"embedding_type": "bad"},
        400,
        "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'",
    ),
}


def post(service: Service, body: dict[str, Any], path: str = "/v1/embeddings") -> httpx.Response:
    return httpx.post(f"{service.http_url}{path}", json=body, timeout=60)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
@pytest.mark.parametrize("case", ERROR_TABLE)
def test_published_error_has_its_status_and_message(service: Service, case: str, path: str) -> None:
    fields, status, message = ERROR_TABLE[case]
    response = post(service, QUERY | fields, path)
    body = response.json()
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert (response.status_code, body["object"], body["message"], body["type"]) == (status, "error", message, kind)
    assert body["error"] == {"message": message, "type": kind, "param": body["error"]["param"], "code": status}


@pytest.mark.parametrize(
    ("state", "body"),
    [
        ("ready", {"object": "health.response", "message": "ready", "ready": True}),
        ("live", {"object": "health.response", "message": "live", "live": True}),
    ],
)
def test_health_response_is_the_published_one(service: Service, state: str, body: dict[str, Any]) -> None:
    response = httpx.get(f"{service.http_url}/v1/health/{state}", headers={"Accept": "application/json"})
    assert (response.status_code, response.json()) == (200, body)


def test_models_are_listed_as_openai_lists_them(service: Service) -> None:
    listed = httpx.get(f"{service.http_url}/v1/models").json()
    assert listed.keys() == {"object", "data"} and listed["object"] == "list"
    for model, public_id in zip(listed["data"], [TINY, MINILM], strict=True):
        owner = public_id.partition("/")[0]
        assert model == {"id": public_id, "object": "model", "created": model["created"], "owned_by": owner}
        assert isinstance(model["created"], int)


@pytest.mark.parametrize(
    ("fields", "number", "text_tokens", "image_tokens"),
    [
        ({}, float, 13, 0),
        ({"input": [IMAGE_URL], "input_type": "passage", "modality": "image"}, float, 16, 256),
        ({"embedding_type": "int8"}, int, 13, 0),
    ],
    ids=["text query", "image document", "int8"],
)
def test_embeddings_response_is_the_published_one(
    service: Service, fields: dict[str, Any], number: type, text_tokens: int, image_tokens: int
) -> None:
    body = post(service, QUERY | fields).json()
    assert body.keys() == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", TINY)
    [entry] = body["data"]
    assert entry == {"object": "embedding", "index": 0, "embedding": entry["embedding"]}
    assert len(entry["embedding"]) == DIMENSIONS
    assert {type(value) for value in entry["embedding"]} == {number}
    total = text_tokens + image_tokens
    details = {"text_tokens": text_tokens, "image_tokens": image_tokens}
    assert body["usage"] == {"prompt_tokens": total, "total_tokens": total, "prompt_tokens_details": details}


def test_openrouter_adds_id_and_cost(service: Service) -> None:
    body = {"model": MINILM, "input": "The quick brown fox jumps over the lazy dog"}
    response = post(service, body, "/api/v1/embeddings").json()
    assert response.keys() == {"object", "data", "model", "usage", "id"}
    assert response["usage"]["cost"] == 0
    assert response["data"] == post(service, body).json()["data"]


def test_openrouters_other_fields_are_ignored(service: Service) -> None:
    body = {"model": f"{TINY}:free", "input": "Your text here"}
    ignored = {
        "provider": {"order": ["openai", "azure"], "allow_fallbacks": True, "data_collection": "deny"},
        "temperature": 1,
        "top_p": 0.5,
        "seed": 7,
        "max_tokens": 10,
        "response_format": {"type": "json_object"},
    }
    plain, with_ignored = (post(service, fields, "/api/v1/embeddings").json() for fields in (body, body | ignored))
    assert with_ignored["data"] == plain["data"]


def test_modality_can_be_given_for_each_input(service: Service) -> None:
    both = f'A gradient <img src="{IMAGE_URL}"/>'
    body = {"model": TINY, "input": ["A gradient", IMAGE_URL, both]}
    inferred = post(service, body).json()
    explicit = post(service, body | {"modality": ["text", "image", "text_image"]}).json()
    assert explicit["usage"] == inferred["usage"]
    assert inferred["usage"]["prompt_tokens_details"]["image_tokens"] == 2 * 256
    assert len({str(entry["embedding"]) for entry in inferred["data"]}) == 3
