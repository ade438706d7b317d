"""Prompts of the model by name, and instructions in the client's words, in every dialect that has such a field."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine
from tests.gateway.requests import DATA_URL

PROMPTS = {"query": "search: ", "Clustering": "cluster: ", "classification": "classify: ", "STS": "similar: "}
TEMPLATE = "Instruct: {instruction}\nQuery:"
MODEL = replace(
    TEXT_MODEL, takes_prompts=True, manifest={"prompts": PROMPTS, "instruction_template": TEMPLATE}, max_tokens=256
)
BODY = {"model": MODEL.public_id, "input": ["a"]}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(served=(MODEL,))


@pytest.fixture
async def client(engine: FakeEngine, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/v1/embeddings", {"prompt_name": "STS"}, ("passage", "similar: ")),
        ("/v1/embeddings", {"prompt_name": "clustering"}, ("passage", "cluster: ")),
        ("/v1/embeddings", {"prompt_name": "query"}, ("query", None)),
        ("/v1/embeddings", {"prompt_name": "document"}, ("passage", None)),
        ("/v1/embeddings", {"instruction": "find {a} joke"}, ("query", "Instruct: find {a} joke\nQuery:")),
        ("/v1/embeddings", {"instruction": "find", "input_type": "query"}, ("query", "Instruct: find\nQuery:")),
        ("/v1/embeddings", {"instruction": "find", "encoding_format": "float"}, ("query", "Instruct: find\nQuery:")),
        ("/v1/embeddings", {"prompt_name": "STS", "truncation": True}, ("passage", "similar: ")),
        ("/api/v1/embeddings", {"prompt_name": "STS"}, ("passage", "similar: ")),
        ("/v1/tokenize", {"prompt_name": "STS"}, ("passage", "similar: ")),
        ("/embed", {"prompt_name": "STS"}, ("passage", "similar: ")),
        ("/embed", {"prompt_name": "query"}, ("query", None)),
        ("/v2/embed", {"input_type": "clustering"}, ("passage", "cluster: ")),
        ("/v2/embed", {"input_type": "classification"}, ("passage", "classify: ")),
        ("/v2/embed", {"input_type": "search_query"}, ("query", None)),
    ],
)
async def test_a_prompt_reaches_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, fields: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/embed": {"inputs": ["a"]},
        "/v2/embed": {"model": MODEL.public_id, "texts": ["a"]},
    }
    body = bodies.get(path, BODY)
    response = await client.post(path, json=body | fields)
    assert response.status_code == 200, response.text
    assert (engine.batches[-1].input_type, engine.batches[-1].prompt) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"prompt_name": "s3cret"},
            "prompt_name must be one of the model's: 'Clustering', 'STS', 'classification', 'document', 'passage', "
            "'query'",
        ),
        ({"prompt_name": "STS", "model": f"{MODEL.public_id}-query"}, "prompt_name and input_type exclude each other"),
        ({"instruction": "find", "input_type": "passage"}, "instruction is for queries, not for passages"),
        ({"instruction": ""}, "instruction must be a string of 1 to 2000 characters"),
        ({"instruction": "a" * 2001}, "instruction must be a string of 1 to 2000 characters"),
    ],
)
async def test_what_the_model_does_not_have_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], message: str
) -> None:
    response = await client.post("/v1/embeddings", json=BODY | fields)
    assert (response.status_code, response.json()["error"]["message"]) == (400, message)
    assert not engine.batches


@pytest.mark.parametrize("fields", [{"prompt_name": "STS"}, {"instruction": "find"}])
async def test_a_model_of_an_earlier_export_has_to_be_exported_again(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, str]
) -> None:
    engine.served = (replace(MODEL, takes_prompts=False),)
    response = await client.post("/v1/embeddings", json=BODY | fields)
    assert response.status_code == 400
    assert response.json()["error"]["message"].endswith("is not supported by this model: it has to be exported again")
    assert (await client.post("/v1/embeddings", json=BODY | {"prompt_name": "query"})).status_code == 200


async def test_images_take_no_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (replace(IMAGE_MODEL, takes_prompts=True, manifest=MODEL.manifest),)
    body = {"model": IMAGE_MODEL.public_id, "input": ["a", DATA_URL], "prompt_name": "STS"}
    response = await client.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[1]")


async def test_a_long_prompt_counts_at_admission(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for fields in ({}, {"instruction": "find " * 100}):
        await client.post("/v1/embeddings", json=BODY | fields)
    plain, instructed = (sum(batch.item_tokens) for batch in engine.batches[-2:])
    assert instructed > plain + 50


async def test_cohere_s_tasks_are_passages_for_a_model_without_such_prompts(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (TEXT_MODEL,)
    body = {"model": TEXT_MODEL.public_id, "texts": ["a"], "input_type": "classification"}
    assert (await client.post("/v2/embed", json=body)).status_code == 200
    assert (engine.batches[-1].input_type, engine.batches[-1].prompt) == ("passage", None)
