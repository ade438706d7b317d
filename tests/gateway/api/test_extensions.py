"""What goes beyond the published APIs: truncation by default, errors per item, fingerprints, tokenising."""

from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.engine import EmbedBatch, EmbedResult, ItemFailure
from gateway.errors import ModelReplacedError
from gateway.settings import Settings
from gateway.types import ImageItem, Item, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL, IMAGE, post

SHORT_MODEL = replace(TEXT_MODEL, max_tokens=4)
LONG_TEXT = "one two three four five six"  # seven tokens for the fake engine, with the prefix


@pytest.mark.parametrize(("setting", "field", "expected"), [("END", None, "END"), ("END", "NONE", "NONE")])
async def test_server_side_truncate_is_the_default_only(
    engine: FakeEngine, setting: str, field: str | None, expected: str
) -> None:
    app = create_app(Settings(truncate=setting), engine)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        await post(client, input="a", **({"truncate": field} if field else {}))
    assert engine.batches[0].truncate == expected


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
async def test_cut_items_are_reported_in_usage_and_header(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.served = (SHORT_MODEL,)
    body = {"model": SHORT_MODEL.public_id, "input": ["a", LONG_TEXT, LONG_TEXT], "truncate": "END"}
    response = await client.post(path, json=body)
    usage = response.json()["usage"]
    assert usage["truncated"] == [{"index": 1, "tokens": 7, "kept": 4}, {"index": 2, "tokens": 7, "kept": 4}]
    assert response.headers["x-truncated-items"] == "1,2"


async def test_nothing_is_reported_where_nothing_was_cut(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (SHORT_MODEL,)
    response = await post(client, model=SHORT_MODEL.public_id, input="a", truncate="END")
    assert "truncated" not in response.json()["usage"]
    assert "x-truncated-items" not in response.headers


def fail_bad_texts(item: Item) -> ItemFailure | None:
    return ItemFailure("text_too_long", "is bad") if item == TextItem("bad") else None


async def test_with_on_error_item_the_good_items_are_embedded_and_the_bad_ones_say_why(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.fail_item = fail_bad_texts
    broken_url = "data:image/png;base64,@@"
    remote = {"content": [{"type": "image_url", "image_url": {"url": "https://a.example.com/b.png"}}]}
    response = await post(client, input=["good", "bad", " ", DATA_URL, broken_url, remote, "good"], on_error="item")
    data = response.json()["data"]
    assert response.status_code == 200
    assert [entry["index"] for entry in data] == list(range(7))
    for index, item in ((0, TextItem("good")), (3, ImageItem(IMAGE)), (6, TextItem("good"))):
        expected = fake_vector(item, "passage", IMAGE_MODEL.dimensions)
        np.testing.assert_array_equal(np.array(data[index]["embedding"], np.float32), expected)
        assert "error" not in data[index]
    for index, message in (
        (1, "input[1]: is bad"),
        (2, "input[2] must not be blank or empty"),
        (4, "input[4] has an image data URL that is not valid base64"),
        (5, "input[5]: URLs are not fetched by this server; send the file as a data URL"),
    ):
        assert data[index]["embedding"] is None
        assert data[index]["error"]["message"] == message
        assert (data[index]["error"]["param"], data[index]["error"]["code"]) == (f"input[{index}]", 400)


@pytest.mark.parametrize("options", [{}, {"embedding_type": "int8"}, {"encoding_format": "base64", "dimensions": 128}])
async def test_failed_vectors_do_not_reach_post_processing(
    client: httpx.AsyncClient, engine: FakeEngine, options: dict[str, Any]
) -> None:
    engine.fail_item = fail_bad_texts
    alone = (await post(client, input="good", **options)).json()["data"][0]["embedding"]
    data = (await post(client, input=["bad", "good"], on_error="item", **options)).json()["data"]
    assert data[1]["embedding"] == alone


async def test_on_error_item_applies_beside_fields_of_other_apis(client: httpx.AsyncClient) -> None:
    data = (await post(client, input=["good", " "], on_error="item", normalize=True)).json()["data"]
    assert [entry["embedding"] is None for entry in data] == [False, True]


async def test_request_in_which_every_item_fails_still_names_each(client: httpx.AsyncClient) -> None:
    response = await post(client, input=[" ", ""], on_error="item")
    assert response.status_code == 200
    assert [entry["error"]["code"] for entry in response.json()["data"]] == [400, 400]
    assert response.json()["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("on_error", [None, "request"])
async def test_without_on_error_item_a_bad_item_fails_the_request(
    client: httpx.AsyncClient, on_error: str | None
) -> None:
    response = await post(client, input=["good", " "], on_error=on_error)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[1]")


async def test_engine_fault_is_never_an_items_error(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_item = lambda item: ItemFailure("", "no such code")
    assert (await post(client, input="a", on_error="item")).status_code == 500


async def test_fingerprint_is_in_every_response_and_can_be_asserted(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (replace(TEXT_MODEL, fingerprint="f00"),)
    body = {"model": TEXT_MODEL.public_id, "input": "a"}
    for path in ("/v1/embeddings", "/api/v1/embeddings"):
        response = await client.post(path, json=body)
        assert response.headers["x-embedding-fingerprint"] == "f00"
        same = await client.post(path, json=body, headers={"x-embedding-fingerprint": "f00"})
        assert same.status_code == 200
        other = await client.post(path, json=body, headers={"x-embedding-fingerprint": "bar"})
        assert (other.status_code, other.json()["type"]) == (409, "conflict_error")
    assert len(engine.batches) == 4


async def test_tokenize_counts_tokens_and_tiles_and_what_would_be_cut(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (replace(IMAGE_MODEL, max_tokens=300),)
    engine.fail_item = fail_bad_texts
    long_text = " ".join(["word"] * 400)
    body = {"model": IMAGE_MODEL.public_id, "input": ["a b", long_text, DATA_URL, "bad", ""]}
    answer = (await client.post("/v1/tokenize", json=body)).json()
    assert (answer["object"], answer["model"], answer["max_tokens"]) == ("list", IMAGE_MODEL.public_id, 300)
    short, long, image, bad, blank = answer["data"]
    assert (short["tokens"], short["kept"], len(short["token_ids"]), short["error"]) == (3, 3, 3, None)
    assert (long["tokens"], long["kept"], len(long["token_ids"])) == (401, 300, 300)
    assert (image["tiles"], image["image_tokens"]) == (1, 256)
    assert (bad["error"]["message"], blank["error"]["param"]) == ("input[3]: is bad", "input[4]")
    assert answer["total_tokens"] == sum(item["tokens"] for item in answer["data"])


async def test_tokenize_refuses_what_embeddings_refuse(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/v1/tokenize", json={"model": "no/such", "input": "a"})
    assert unknown.status_code == 404
    malformed = await client.post("/v1/tokenize", json={"model": TEXT_MODEL.public_id, "input": 5})
    assert malformed.status_code == 400


class ReplacingEngine(FakeEngine):
    """Has its model replaced just before its next batches."""

    replacements = 1

    async def embed(self, batch: EmbedBatch) -> EmbedResult:
        if self.replacements:
            self.replacements -= 1
            self.served = (replace(TEXT_MODEL, fingerprint="f01", dimensions=8),)
            raise ModelReplacedError
        return await super().embed(batch)


@pytest.mark.parametrize(("replacements", "status"), [(1, 200), (2, 200), (3, 503)])
async def test_a_request_whose_model_is_replaced_gets_the_vectors_and_the_fingerprint_of_the_new_one(
    settings: Settings, replacements: int, status: int
) -> None:
    engine = ReplacingEngine(served=(replace(TEXT_MODEL, fingerprint="f00"),))
    engine.replacements = replacements
    transport = httpx.ASGITransport(create_app(settings, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/v1/embeddings", json={"model": TEXT_MODEL.public_id, "input": "a"})
        assert response.status_code == status
        if status == 503:
            assert response.headers["retry-after"]
            return
        assert response.headers["x-embedding-fingerprint"] == "f01"
        assert len(response.json()["data"][0]["embedding"]) == 8
        engine.replacements, engine.served = 1, (replace(TEXT_MODEL, fingerprint="f00"),)
        body = {"model": TEXT_MODEL.public_id, "input": "a"}
        strict = await client.post("/v1/embeddings", json=body, headers={"x-embedding-fingerprint": "f00"})
        assert strict.status_code == 409
