"""Items given as token ids: checked, decoded, or refused."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.core.token_ids import TokenIdSettingsError, build_token_id_policy
from gateway.settings import Settings
from gateway.types import TextItem, TokensItem
from tests.gateway.fake_engine import TEXT_MODEL, FakeEngine

# The 256 bytes, and one merge.
RANKS = [bytes([value]) for value in range(256)] + [b"Hello"]


@pytest.fixture
def tiktoken_file(tmp_path: Path) -> Path:
    file = tmp_path / "cl100k_base.tiktoken"
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(RANKS))
    file.write_text("\n".join(lines))
    return file


@asynccontextmanager
async def serving(engine: FakeEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(Settings(**settings), engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def embed(client: httpx.AsyncClient, value: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": TEXT_MODEL.public_id, "input": value})


@pytest.mark.parametrize(("mode", "checked"), [("checked", True), ("any", False)])
async def test_engine_checks_token_ids_unless_any_are_taken(mode: str, checked: bool) -> None:
    engine = FakeEngine()
    async with serving(engine, token_ids=mode) as client:
        assert (await embed(client, [[1, 2], [3]])).status_code == 200
    [batch] = engine.batches
    assert batch.items == [TokensItem([1, 2]), TokensItem([3])]
    assert batch.check_token_ids is checked


async def test_refused_token_ids_get_400_that_names_the_remedy() -> None:
    engine = FakeEngine()
    async with serving(engine, token_ids="refuse") as client:
        response = await embed(client, [[1, 2], [3]])
        assert (await embed(client, "a text")).status_code == 200
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[0]")
    assert "check_embedding_ctx_length=False" in response.json()["message"]


async def test_unverifiable_token_ids_are_refused_unless_any_are_taken() -> None:
    engine = FakeEngine(served=(replace(TEXT_MODEL, checks_token_ids=False),))
    async with serving(engine) as client:
        response = await embed(client, [1, 2])
        assert (await embed(client, "a text")).status_code == 200
    assert response.status_code == 400
    assert "cannot be checked for this model" in response.json()["message"]
    async with serving(engine, token_ids="any") as client:
        assert (await embed(client, [1, 2])).status_code == 200


async def test_ids_of_an_encoding_are_decoded_to_text(tiktoken_file: Path) -> None:
    engine = FakeEngine()
    async with serving(engine, token_ids="cl100k_base", tiktoken_file=tiktoken_file) as client:
        ids = [[256, 44, *" wörld".encode()], list("日本".encode())]
        assert (await embed(client, ids)).status_code == 200
        assert (await embed(client, ids[0])).status_code == 200
    assert engine.batches[0].items == [TextItem("Hello, wörld"), TextItem("日本")]
    assert engine.batches[1].items == [TextItem("Hello, wörld")]


async def test_ids_outside_the_encoding_or_of_white_space_are_refused(tiktoken_file: Path) -> None:
    async with serving(FakeEngine(), token_ids="cl100k_base", tiktoken_file=tiktoken_file) as client:
        outside = await embed(client, [[256], [257]])
        assert (outside.status_code, outside.json()["error"]["param"]) == (400, "input[1]")
        blank = await embed(client, [[32, 10]])
        assert blank.json()["message"] == "input[0] must not be blank or empty"


@pytest.mark.parametrize("content", [None, b"not a list of ranks"])
def test_an_encoding_that_cannot_be_loaded_ends_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "cl100k_base.tiktoken"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenIdSettingsError, match="GATEWAY_TIKTOKEN_FILE"):
        build_token_id_policy(Settings(token_ids="cl100k_base", tiktoken_file=file))


def test_an_encoding_without_tiktoken_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tiktoken", None)
    with pytest.raises(TokenIdSettingsError, match=r"tessera\[tiktoken\]"):
        build_token_id_policy(Settings(token_ids="o200k_base"))
