"""The dialect of Text Embeddings Inference over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from gateway.types import TextItem, TokensItem
from tests.gateway.fake_engine import TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL

MODEL = replace(TEXT_MODEL, manifest={"revision": "abc", "pooling": "mean"})


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(served=(MODEL,))


@pytest.fixture
async def two_models(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A server with two models, of which one is the default."""
    engine.served = (replace(MODEL, public_id="m/other", dimensions=64), MODEL)
    transport = httpx.ASGITransport(create_app(Settings(default_model=MODEL.public_id), engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_response_is_a_bare_array_of_vectors(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={"inputs": ["a", "b"]})
    received = np.array(response.json(), np.float32)
    np.testing.assert_array_equal(received, [fake_vector(TextItem(text), "passage", 384) for text in "ab"])
    assert int(response.headers["x-compute-tokens"]) == 4


@pytest.mark.parametrize(
    ("inputs", "items"),
    [
        ("a", [TextItem("a")]),
        (["a", "b"], [TextItem("a"), TextItem("b")]),
        (DATA_URL, [TextItem(DATA_URL)]),
        ([1, 2], [TokensItem([1, 2])]),
        ([[1, 2], [3]], [TokensItem([1, 2]), TokensItem([3])]),
    ],
)
async def test_every_form_of_inputs_is_understood(
    client: httpx.AsyncClient, engine: FakeEngine, inputs: object, items: list[object]
) -> None:
    response = await client.post("/embed", json={"inputs": inputs})
    assert (response.status_code, len(response.json())) == (200, len(items))
    assert list(engine.batches[0].items) == items


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("passage", "NONE")),
        ({"truncate": None, "truncation_direction": "left"}, ("passage", "NONE")),
        ({"truncate": False}, ("passage", "NONE")),
        ({"truncate": True}, ("passage", "END")),
        ({"truncate": True, "truncation_direction": "right"}, ("passage", "END")),
        ({"truncate": True, "truncation_direction": "Left"}, ("passage", "START")),
        ({"prompt_name": "query", "normalize": True}, ("query", "NONE")),
        ({"prompt_name": "document"}, ("passage", "NONE")),
    ],
)
async def test_fields_are_applied(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], expected: tuple[str, str]
) -> None:
    assert (await client.post("/embed", json={"inputs": "a", **fields})).status_code == 200
    assert (engine.batches[0].input_type, engine.batches[0].truncate) == expected


async def test_dimensions_cut_the_vectors(client: httpx.AsyncClient) -> None:
    [vector] = (await client.post("/embed", json={"inputs": "a", "dimensions": 32})).json()
    assert len(vector) == 32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "inputs is required"),
        ({"inputs": None}, "inputs is required"),
        ({"inputs": []}, "input must not be empty"),
        ({"inputs": ["a", ""]}, "input[1] must not be blank or empty"),
        ({"inputs": [[1], [-1]]}, "input[1] has a token id outside the vocabulary"),
        ({"inputs": "a", "normalize": False}, "normalize must be true: every vector has unit length"),
        ({"inputs": "a", "truncate": "END"}, "truncate must be a boolean"),
        ({"inputs": "a", "truncation_direction": "up"}, "truncation_direction must be 'left' or 'right'"),
        (
            {"inputs": "a", "prompt_name": "bogus"},
            "prompt_name must be one of the model's: 'document', 'passage', 'query'",
        ),
        ({"inputs": "a", "dimensions": 0}, "dimensions must be a positive integer"),
        ({"inputs": "a", "dimensions": 385}, "dimensions must be from 32 to 384"),
        ({"inputs": "a", "parameters": {}}, "unknown field 'parameters'"),
    ],
)
async def test_invalid_bodies_get_400_with_a_message(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], message: str
) -> None:
    response = await client.post("/embed", json=fields)
    assert (response.status_code, response.json()["message"]) == (400, message)
    assert not engine.batches


async def test_model_is_the_default_or_named_in_the_url(two_models: httpx.AsyncClient) -> None:
    [default] = (await two_models.post("/embed", json={"inputs": "a"})).json()
    [other] = (await two_models.post("/embed?model=m/other", json={"inputs": "a"})).json()
    assert (len(default), len(other)) == (384, 64)
    assert (await two_models.get("/info")).json()["model_id"] == MODEL.public_id
    assert (await two_models.get("/info?model=m/other")).json()["model_id"] == "m/other"


@pytest.mark.parametrize("query", ["model=bogus", "model=m/other&model=m/other"])
async def test_a_model_that_is_not_served_is_refused(two_models: httpx.AsyncClient, query: str) -> None:
    response = await two_models.post(f"/embed?{query}", json={"inputs": "a"})
    assert response.status_code in (400, 404)


async def test_one_of_several_models_has_to_be_named(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (MODEL, replace(MODEL, public_id="m/other"))
    response = await client.post("/embed", json={"inputs": "a"})
    assert response.status_code == 404
    assert response.json()["message"] == "several models are served, and the request names none"


async def test_info_describes_the_model(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info")).json()
    assert info.pop("version")
    assert info == {
        "model_id": MODEL.public_id,
        "model_sha": "abc",
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_input_length": 256,
        "max_batch_tokens": 8192,
        "max_client_batch_size": 2048,
    }


@pytest.mark.parametrize("path", ["/embed_all", "/embed_sparse", "/predict"])
async def test_other_routes_of_the_api_do_not_exist(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, json={"inputs": "a"})).status_code == 404
