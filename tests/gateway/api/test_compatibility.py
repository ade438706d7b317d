"""Bodies of `/v1/embeddings` as clients of vLLM, Voyage AI and Jina AI send them."""

import base64

import httpx
import numpy as np
import pytest

from gateway.engine import ItemFailure
from gateway.types import ImageItem, TextImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL, IMAGE, post

TEXT_PART = {"type": "text", "text": "a page"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}


@pytest.mark.parametrize(
    ("content", "item"),
    [
        ("a page", TextItem("a page")),
        (DATA_URL, TextItem(DATA_URL)),
        ([TEXT_PART], TextItem("a page")),
        ([TEXT_PART, {"type": "text", "text": "b"}], TextItem("a page\nb")),
        ([IMAGE_PART], ImageItem(IMAGE)),
        ([IMAGE_PART, TEXT_PART], TextImageItem("a page", IMAGE)),
    ],
)
async def test_a_message_is_one_item(
    client: httpx.AsyncClient, engine: FakeEngine, content: object, item: object
) -> None:
    response = await post(client, messages=[{"role": "user", "content": content}], encoding_format="float")
    assert response.status_code == 200, response.text
    assert list(engine.batches[0].items) == [item]
    assert [entry["index"] for entry in response.json()["data"]] == [0]


@pytest.mark.parametrize(
    ("role", "fields", "expected"),
    [
        ("user", {}, "passage"),
        ("user", {"input_type": "query"}, "query"),
        ("query", {}, "query"),
        ("query", {"input_type": "search_query"}, "query"),
        ("document", {}, "passage"),
    ],
)
async def test_role_of_a_message_sets_the_input_type(
    client: httpx.AsyncClient, engine: FakeEngine, role: str, fields: dict[str, object], expected: str
) -> None:
    await post(client, messages=[{"role": role, "content": "a"}], **fields)
    assert engine.batches[0].input_type == expected


async def test_what_aiperf_sends_is_served(client: httpx.AsyncClient) -> None:
    body = {
        "messages": [{"role": "user", "content": [TEXT_PART, IMAGE_PART]}],
        "model": IMAGE_MODEL.public_id,
        "stream": False,
    }
    assert len((await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]) == 2048


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "a"}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "input[0]"),
        ({"messages": [{"role": "user", "content": [IMAGE_PART, IMAGE_PART]}]}, "input[0]"),
        ({"messages": [{"role": "query", "content": [IMAGE_PART]}]}, "input_type"),
        ({"messages": [{"role": "query", "content": "a"}], "input_type": "passage"}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a"}], "input": "a"}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}], "bogus": 1}, "bogus"),
        ({"stream": False}, "input"),
        ({"input": "a", "stream": True}, "stream"),
        ({"input": "a", "add_special_tokens": False}, "add_special_tokens"),
        ({"input": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"input": "a", "priority": 1}, "priority"),
        ({"input": "a", "priority": "high"}, "priority"),
        ({"input": "a", "normalize": False}, "normalize"),
        ({"input": "a", "use_activation": False}, "use_activation"),
        ({"input": "a", "normalized": False}, "normalized"),
        ({"input": "a", "late_chunking": True}, "late_chunking"),
        ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": 10239}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": -1, "truncate": "NONE"}, "truncate_prompt_tokens"),
        ({"input": "a", "truncation_side": "both"}, "truncation_side"),
        ({"input": "a", "embed_dtype": "bfloat16"}, "embed_dtype"),
        (
            {"input": "a", "embed_dtype": "float16", "embedding_type": "int8", "encoding_format": "base64"},
            "embed_dtype",
        ),
        ({"input": "a", "endianness": "middle"}, "endianness"),
        ({"input": "a", "embed_dtype": "float32", "encoding_format": "bytes"}, "encoding_format"),
        ({"input": "a", "truncation": "END"}, "truncation"),
        ({"input": "a", "output_dimension": 127}, "dimensions"),
        ({"input": "a", "output_dimension": 0}, "output_dimension"),
        ({"input": "a", "output_dimension": 256, "dimensions": 128}, "output_dimension"),
        ({"input": "a", "output_dtype": "float16"}, "output_dtype"),
        ({"input": "a", "task": "classification"}, "task"),
        ({"input": "a", "task": "retrieval.query", "input_type": "passage"}, "task"),
        ({"input": ["a", None], "task": "retrieval.query"}, "input"),
        ({"input": ["a", ""], "task": "retrieval.query"}, "input[1]"),
    ],
)
async def test_what_would_change_the_meaning_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], param: str
) -> None:
    response = await post(client, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not engine.batches


@pytest.mark.parametrize(
    "fields",
    [
        {"add_special_tokens": True, "priority": 0, "normalize": True, "use_activation": None},
        {"truncation_side": "left"},
        {"late_chunking": False, "normalized": True},
        {"dimensions": 2048, "output_dimension": 2048},
    ],
)
async def test_defaults_of_other_servers_change_nothing(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object]
) -> None:
    plain, same = await post(client, input="a"), await post(client, input="a", **fields)
    assert same.json() == plain.json()
    assert engine.batches[0].truncate == engine.batches[1].truncate == "NONE"


async def test_either_value_of_add_special_tokens_is_a_default_with_messages(client: httpx.AsyncClient) -> None:
    for value in (True, False):
        response = await post(client, messages=[{"role": "user", "content": "a"}], add_special_tokens=value)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"truncate_prompt_tokens": -1}, "END"),
        ({"truncate_prompt_tokens": -1, "truncation_side": "left"}, "START"),
        ({"truncate_prompt_tokens": -1, "truncation_side": "right", "truncate": "END"}, "END"),
        ({"truncate_prompt_tokens": 10240}, "END"),
        ({"truncation": True}, "END"),
        ({"truncation": False}, "NONE"),
        ({"truncation": None, "truncate": "START"}, "START"),
    ],
)
async def test_truncation_of_other_servers_is_understood(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], expected: str
) -> None:
    assert (await post(client, input="a", **fields)).status_code == 200
    assert engine.batches[0].truncate == expected


@pytest.mark.parametrize(("endianness", "mark"), [(None, "<"), ("native", "<"), ("little", "<"), ("big", ">")])
@pytest.mark.parametrize(("embed_dtype", "dtype"), [(None, "f4"), ("float32", "f4"), ("float16", "f2")])
async def test_base64_has_the_requested_type_and_byte_order(
    client: httpx.AsyncClient, endianness: str | None, mark: str, embed_dtype: str | None, dtype: str
) -> None:
    response = await post(client, input="a", encoding_format="base64", embed_dtype=embed_dtype, endianness=endianness)
    decoded = np.frombuffer(base64.b64decode(response.json()["data"][0]["embedding"]), mark + dtype)
    np.testing.assert_array_equal(decoded, fake_vector(TextItem("a"), "passage", 2048).astype(dtype))


async def test_embed_dtype_leaves_numbers_as_they_are(client: httpx.AsyncClient) -> None:
    plain = await post(client, input="a")
    assert (await post(client, input="a", embed_dtype="float16", endianness="big")).json() == plain.json()


async def test_voyage_body_is_understood(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    fields = {"input_type": "document", "truncation": True, "output_dtype": "int8", "output_dimension": 256}
    voyage = await post(client, input=["a"], encoding_format="base64", **fields)
    ours = await post(client, input=["a"], encoding_format="base64", dimensions=256, embedding_type="int8")
    assert voyage.json() == ours.json()
    assert engine.batches[0].truncate == "END"


@pytest.mark.parametrize(("task", "expected"), [("retrieval.query", "query"), ("retrieval.passage", "passage")])
async def test_jina_task_sets_the_input_type(
    client: httpx.AsyncClient, engine: FakeEngine, task: str, expected: str
) -> None:
    fields = {"task": task, "late_chunking": False, "embedding_type": "float", "dimensions": None}
    assert (await post(client, model=TEXT_MODEL.public_id, input=["a"], **fields)).status_code == 200
    assert engine.batches[0].input_type == expected


async def test_failed_message_is_named_as_an_item(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_item = lambda item: ItemFailure("text_too_long", "is too long")
    response = await post(client, messages=[{"role": "user", "content": "a"}])
    assert (response.status_code, response.json()["message"]) == (400, "input[0]: is too long")


async def test_openrouter_route_has_no_such_fields(client: httpx.AsyncClient) -> None:
    body = {"model": IMAGE_MODEL.public_id, "messages": [{"role": "user", "content": "a"}]}
    response = await client.post("/api/v1/embeddings", json=body)
    assert (response.status_code, response.json()["message"]) == (400, "unknown field 'messages'")
