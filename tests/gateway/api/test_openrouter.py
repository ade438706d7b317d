"""OpenRouter's dialect over HTTP."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from gateway.errors import EngineUnavailableError, GatewayError, OverloadedError
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine
from tests.gateway.requests import DATA_URL


async def post(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/api/v1/embeddings", json={"model": IMAGE_MODEL.public_id, "input": "a", **body})


async def test_response_adds_id_and_cost(client: httpx.AsyncClient) -> None:
    body = {"model": IMAGE_MODEL.public_id + ":free", "input": ["a", DATA_URL]}
    response = await client.post("/api/v1/embeddings", json=body, headers={"x-request-id": "r1"})
    answer = response.json()
    assert (answer["id"], answer["object"], answer["model"]) == ("embd-r1", "list", IMAGE_MODEL.public_id)
    assert answer["usage"]["cost"] == 0
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == 256
    assert len(answer["data"]) == 2


async def test_generation_parameters_are_ignored_here_and_refused_elsewhere(client: httpx.AsyncClient) -> None:
    fields = {"temperature": 1, "top_p": 0.5, "seed": 3, "max_tokens": 4, "response_format": {"type": "json"}}
    fields |= {"session_id": "s", "trace": {}}
    assert (await post(client, **fields)).status_code == 200
    for name, value in fields.items():
        body = {"model": IMAGE_MODEL.public_id, "input": "a", name: value}
        response = await client.post("/v1/embeddings", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, name)


async def test_unknown_fields_are_refused_here_too(client: httpx.AsyncClient) -> None:
    response = await post(client, bogus=1)
    assert (response.status_code, response.json()["message"]) == (400, "unknown field 'bogus'")


@pytest.mark.parametrize("kind", [OverloadedError, EngineUnavailableError])
async def test_overload_is_529_here_and_503_elsewhere(
    client: httpx.AsyncClient, engine: FakeEngine, kind: type[GatewayError]
) -> None:
    def explode(*arguments: object) -> np.ndarray:
        raise kind("full", retry_after_s=1)

    engine.make_vector = explode
    response = await post(client)
    assert (response.status_code, response.json()["error"]["code"]) == (529, 529)
    assert int(response.headers["retry-after"]) >= 1
    elsewhere = await client.post("/v1/embeddings", json={"model": IMAGE_MODEL.public_id, "input": "a"})
    assert elsewhere.status_code == 503


@pytest.mark.parametrize("path", ["/api/v1/embeddings/models", "/api/v1/models"])
async def test_models_are_listed_with_what_the_sdks_require(client: httpx.AsyncClient, path: str) -> None:
    answer = (await client.get(path)).json()
    assert (answer["total_count"], answer["links"]) == (2, {"next": None})
    model = next(model for model in answer["data"] if model["id"] == IMAGE_MODEL.public_id)
    assert model["context_length"] == 10240
    assert model["architecture"]["input_modalities"] == ["text", "image"]
    assert model["architecture"]["output_modalities"] == ["embeddings"]
    assert {"canonical_slug", "name", "created", "pricing", "top_provider", "per_request_limits"} <= model.keys()
    assert {"supported_parameters", "default_parameters", "supported_voices", "links"} <= model.keys()


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/model"])
@pytest.mark.parametrize("suffix", ["", ":free", "-passage"])
async def test_one_model_is_shown_as_it_is_listed(client: httpx.AsyncClient, path: str, suffix: str) -> None:
    listed = (await client.get("/api/v1/models")).json()["data"]
    for model in listed:
        shown = await client.get(f"{path}/{model['id']}{suffix}")
        assert (shown.status_code, shown.json()) == (200, {"data": model})


async def test_this_server_is_a_models_only_endpoint(client: httpx.AsyncClient) -> None:
    answer = (await client.get(f"/api/v1/models/{IMAGE_MODEL.public_id}/endpoints")).json()["data"]
    assert {"id", "name", "created", "description", "architecture", "endpoints"} == answer.keys()
    (endpoint,) = answer["endpoints"]
    assert (endpoint["provider_name"], endpoint["tag"], endpoint["quantization"]) == ("tessera", "tessera", "fp32")
    assert (endpoint["context_length"], endpoint["model_id"]) == (10240, IMAGE_MODEL.public_id)
    assert float(endpoint["pricing"]["prompt"]) == 0


async def test_endpoints_of_an_unknown_model_get_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/models/no/such/endpoints")
    assert (response.status_code, response.json()["error"]["param"]) == (404, "model")


async def test_list_of_models_is_paged(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = tuple(replace(TEXT_MODEL, public_id=f"m/{number}") for number in range(5))
    path = "/api/v1/models?limit=2"
    seen = []
    while path:
        answer = (await client.get(path)).json()
        seen += [model["id"] for model in answer["data"]]
        path = answer["links"]["next"]
    assert seen == [f"m/{number}" for number in range(5)]


async def test_models_are_counted(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/models/count")
    assert (answer.status_code, answer.json()) == (200, {"data": {"count": 2}})


@pytest.mark.parametrize("query", ["offset=x&offset=1", "limit=1&limit=1"])
async def test_parameter_given_twice_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/v1/models?{query}")
    assert answer.status_code == 400
    assert "must be given once" in answer.json()["message"]


@pytest.mark.parametrize("query", ["limit=a", "limit=", "offset=-1", "limit=1.5", "offset=" + "9" * 5000])
async def test_malformed_pages_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/api/v1/models?{query}")).status_code == 400
