"""The OpenAPI document against what the routes take and answer."""

import hashlib
import json
import re
from typing import Any

import httpx
import msgspec
import pytest

from gateway.api import cohere, openai_nim, rerank, tei
from gateway.api.embeddings import EmbeddingsResponse
from gateway.api.error_responses import ErrorBody
from gateway.api.nim_metadata import Version
from gateway.api.openai_nim import Live, ModelList, Ready
from gateway.api.openapi import EXAMPLES
from gateway.api.openrouter import ModelPage, OpenRouterResponse
from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import RANK_MODEL, TEXT_MODEL, FakeEngine
from tests.gateway.requests import DATA_URL, post


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def input_forms(document: dict[str, Any], body: str) -> list[dict[str, Any]]:
    forms: list[dict[str, Any]] = document["components"]["schemas"][body]["properties"]["input"]["anyOf"]
    return forms


@pytest.mark.parametrize("max_items", [2048, 3])
@pytest.mark.parametrize("body", ["EmbeddingsBody", "CompatibleBody", "OpenRouterBody"])
def test_described_limit_of_items_is_the_configured_one(engine: FakeEngine, body: str, max_items: int) -> None:
    document = create_app(Settings(max_items=max_items), engine).openapi()
    assert [form.get("maxItems") for form in input_forms(document, body)] == [None, max_items, None, max_items]


async def test_forms_of_the_input_are_described_apart(document: dict[str, Any]) -> None:
    string, texts, ids, id_lists = input_forms(document, "EmbeddingsBody")
    assert string["type"] == "string"
    assert [form.get("type", "object") for form in texts["items"]["anyOf"]] == ["string", "object"]
    assert (ids["items"]["type"], id_lists["items"]["items"]["type"]) == ("integer", "integer")


async def test_every_reference_resolves(document: dict[str, Any], client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    references = set(re.findall(r"#/components/schemas/([A-Za-z0-9_-]+)", text))
    assert references <= document["components"]["schemas"].keys()


async def test_embeddings_routes_document_every_error(document: dict[str, Any]) -> None:
    shared = {"200", "400", "401", "402", "404", "408", "409", "413", "415", "429", "500", "504"}
    assert document["paths"]["/v1/embeddings"]["post"]["responses"].keys() == shared | {"503"}
    assert document["paths"]["/api/v1/embeddings"]["post"]["responses"].keys() == shared | {"529"}
    assert document["paths"]["/v1/ranking"]["post"]["responses"].keys() == shared | {"503"}
    assert document["paths"]["/api/v1/rerank"]["post"]["responses"].keys() == shared | {"529"}


@pytest.mark.parametrize(
    "body",
    [
        "EmbeddingsBody",
        "CompatibleBody",
        "CohereBody",
        "TeiBody",
        "RankingBody",
        "RerankBody",
        "OpenRouterRerankBody",
        "TeiRerankBody",
    ],
)
async def test_every_field_of_the_body_is_described(document: dict[str, Any], body: str) -> None:
    for name, field in document["components"]["schemas"][body]["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
async def test_examples_work(client: httpx.AsyncClient, path: str, name: str) -> None:
    response = await client.post(path, json=EXAMPLES[name]["value"])
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "example"),
    [
        ("/v2/embed", cohere.EXAMPLES["texts"]),
        ("/v1/embed", cohere.EXAMPLES["texts"]),
        ("/embed", tei.EXAMPLES["texts"]),
        ("/v1/ranking", openai_nim.RANKING_EXAMPLES["passages"]),
        ("/v2/rerank", rerank.EXAMPLES["texts"]),
        ("/v1/rerank", rerank.EXAMPLES["texts"]),
        ("/api/v1/rerank", rerank.EXAMPLES["texts"]),
        ("/rerank", tei.RERANK_EXAMPLES["texts"]),
    ],
)
async def test_examples_of_other_dialects_work(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, example: dict[str, Any]
) -> None:
    engine.served = (TEXT_MODEL, RANK_MODEL)
    assert (await client.post(path, json=example["value"])).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/models", ModelList),
        ("/v1/health/live", Live),
        ("/v1/health/ready", Ready),
        ("/v1/version", Version),
        ("/api/v1/models", ModelPage),
        ("/no/such/route", ErrorBody),
    ],
)
async def test_responses_are_as_described(client: httpx.AsyncClient, path: str, kind: type) -> None:
    check_shape((await client.get(path)).content, kind)


async def test_vectors_are_as_described(client: httpx.AsyncClient) -> None:
    response = await post(client, input=["a", DATA_URL])
    check_shape(response.content, EmbeddingsResponse)
    body = {"model": response.json()["model"], "input": "a", "encoding_format": "base64"}
    response = await client.post("/api/v1/embeddings", json=body)
    check_shape(response.content, OpenRouterResponse)


async def test_vectors_of_other_dialects_are_as_described(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (TEXT_MODEL,)
    by_type = await client.post("/v2/embed", json={"texts": ["a"], "embedding_types": ["float", "base64"]})
    check_shape(by_type.content, cohere.CohereResponse)
    check_shape((await client.post("/v1/embed", json={"texts": ["a"]})).content, cohere.CohereFloatsResponse)
    check_shape((await client.get("/info")).content, tei.Info)


async def test_rankings_are_as_described(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (RANK_MODEL,)
    nim = await client.post("/v1/ranking", json=openai_nim.RANKING_EXAMPLES["passages"]["value"])
    check_shape(nim.content, openai_nim.RankingResponse)
    body = rerank.EXAMPLES["texts"]["value"]
    check_shape(
        (await client.post("/v2/rerank", json=body | {"return_documents": True})).content, rerank.RerankResponse
    )
    check_shape((await client.post("/api/v1/rerank", json=body)).content, rerank.OpenRouterRerankResponse)
    ranks = await client.post("/rerank", json=tei.RERANK_EXAMPLES["texts"]["value"])
    assert [entry.keys() for entry in msgspec.json.decode(ranks.content, type=list[tei.Rank])] == [
        tei.Rank.__annotations__.keys()
    ] * 2
    check_shape((await client.get("/info")).content, tei.Info)


def check_shape(content: bytes, kind: type) -> None:
    """The content is of the type, with no field beyond it."""
    parsed: object = msgspec.json.decode(content, type=kind)
    assert msgspec.to_builtins(parsed).keys() == json.loads(content).keys()


@pytest.mark.parametrize("keys", [False, True])
async def test_routes_that_need_keys_are_documented_so(engine: FakeEngine, keys: bool) -> None:
    entries = {"ops": {"sha256": hashlib.sha256(b"secret").hexdigest()}}
    settings = Settings(api_keys=json.dumps(entries) if keys else "")
    document = create_app(settings, engine).openapi()
    [scheme] = document["components"]["securitySchemes"]
    asked: list[dict[str, list[str]]] = [{scheme: []}] if keys else [{scheme: []}, {}]
    operations = {path: operation for path, methods in document["paths"].items() for operation in methods.values()}
    assert operations["/v1/embeddings"]["security"] == operations["/api/v1/models"]["security"] == asked
    assert "security" not in operations["/v1/health/live"]


async def test_docs_page_works_offline(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses and all(address.startswith("/docs/assets/") for address in addresses)
    for address in [*addresses, "/openapi.json"]:
        assert (await client.get(address)).status_code == 200
