"""Cohere's dialect over HTTP."""

import base64

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.core.postprocess import cut_dimensions, quantize
from gateway.settings import Settings
from gateway.types import ImageItem, TextImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL, IMAGE

TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}


async def post(client: httpx.AsyncClient, path: str = "/v2/embed", /, **body: object) -> httpx.Response:
    return await client.post(path, json={"model": IMAGE_MODEL.public_id, **body})


async def test_response_has_the_published_shape(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v2/embed",
        json={"model": IMAGE_MODEL.public_id, "input_type": "search_query", "texts": ["one two"]},
        headers={"x-request-id": "r-1"},
    )
    vector = fake_vector(TextItem("one two"), "query", 2048)
    assert response.json() == {
        "response_type": "embeddings_by_type",
        "id": "r-1",
        "embeddings": {"float": [pytest.approx(vector.tolist(), abs=1e-8)]},
        "texts": ["one two"],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": 3, "image_tokens": 0, "images": 0},
        },
    }


async def test_several_types_come_from_one_batch(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await post(client, texts=["a", "b"], embedding_types=[*TYPES, "int8"], output_dimension=256)
    embeddings = response.json()["embeddings"]
    assert [list(batch.items) for batch in engine.batches] == [[TextItem("a"), TextItem("b")]]
    assert list(embeddings) == TYPES
    vectors = np.stack([fake_vector(TextItem(text), "passage", 2048) for text in "ab"])
    cut = cut_dimensions(vectors, 256)
    np.testing.assert_array_equal(np.array(embeddings["float"], np.float32), cut)
    assert embeddings["int8"] == quantize(cut, "int8", "fixed").tolist()
    assert embeddings["uint8"] == quantize(cut, "uint8", "fixed").tolist()
    assert embeddings["binary"] == quantize(cut, "binary", "fixed").tolist()
    assert embeddings["ubinary"] == quantize(cut, "ubinary", "fixed").tolist()
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings["base64"]]
    np.testing.assert_array_equal(np.stack(decoded), cut)


async def test_images_are_embedded_and_counted(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await post(client, images=[DATA_URL, DATA_URL], input_type="image")
    assert list(engine.batches[0].items) == [ImageItem(IMAGE), ImageItem(IMAGE)]
    assert response.json()["texts"] == []
    units = response.json()["meta"]["billed_units"]
    assert (units["images"], units["image_tokens"]) == (2, 512)


async def test_inputs_mix_texts_and_images(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    text = {"type": "text", "text": "a page"}
    await post(client, inputs=[{"content": [text]}, {"content": [IMAGE_PART]}, {"content": [text, IMAGE_PART]}])
    assert list(engine.batches[0].items) == [TextItem("a page"), ImageItem(IMAGE), TextImageItem("a page", IMAGE)]


async def test_a_text_is_never_an_image(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await post(client, texts=[DATA_URL])
    assert list(engine.batches[0].items) == [TextItem(DATA_URL)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("search_query", "query"),
        ("search_document", "passage"),
        ("classification", "passage"),
        ("clustering", "passage"),
        ("image", "passage"),
        ("query", "query"),
        ("document", "passage"),
        (None, "passage"),
    ],
)
async def test_input_types_are_understood(
    client: httpx.AsyncClient, engine: FakeEngine, name: str | None, expected: str
) -> None:
    assert (await post(client, texts=["a"], input_type=name)).status_code == 200
    assert engine.batches[0].input_type == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, "END"), ({"truncate": "NONE"}, "NONE"), ({"truncate": "START"}, "START"), ({"max_tokens": 10240}, "END")],
)
async def test_long_texts_are_cut_at_the_end_by_default(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], expected: str
) -> None:
    assert (await post(client, texts=["a"], **fields)).status_code == 200
    assert engine.batches[0].truncate == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of texts, images and inputs is required"),
        ({"texts": ["a"], "images": [DATA_URL]}, "exactly one of texts, images and inputs is required"),
        ({"texts": []}, "input must not be empty"),
        ({"texts": ["a", " "]}, "input[1] must not be blank or empty"),
        ({"texts": "a"}, "texts must be an array of strings"),
        ({"images": [1]}, "images must be an array of strings"),
        ({"images": ["a text"]}, None),
        ({"inputs": [{"content": []}]}, 'input[0] must be a string or {"content": [...]} with at least one part'),
        ({"texts": ["a"], "input_type": "bogus"}, None),
        ({"images": [DATA_URL], "input_type": "search_query"}, None),
        ({"texts": ["a"], "embedding_types": ["float64"]}, None),
        ({"texts": ["a"], "embedding_types": "float"}, None),
        ({"texts": ["a"], "output_dimension": 0}, "output_dimension must be a positive integer"),
        ({"texts": ["a"], "output_dimension": 64}, "dimensions must be from 128 to 2048"),
        ({"texts": ["a"], "truncate": "end"}, "truncate must be one of 'NONE', 'START', 'END'; got 'end'"),
        ({"texts": ["a"], "max_tokens": 0}, "max_tokens must be a positive integer"),
        (
            {"texts": ["a"], "max_tokens": 512},
            "max_tokens must be at least 10240, the model's limit: lower limits are not supported",
        ),
        ({"texts": ["a"], "priority": 1}, "priority must be 0"),
        ({"texts": ["a"], "model": ""}, "model is required"),
        ({"texts": ["a"], "bogus": 1}, "unknown field 'bogus'"),
    ],
)
async def test_invalid_bodies_get_400_with_a_message(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], message: str | None
) -> None:
    response = await post(client, **fields)
    assert response.status_code == 400
    assert response.json()["message"] == message or message is None
    assert not engine.batches


async def test_first_version_returns_a_list_unless_types_are_given(client: httpx.AsyncClient) -> None:
    plain = (await post(client, "/v1/embed", texts=["a"], input_type="search_document")).json()
    typed = (await post(client, "/v1/embed", texts=["a"], embedding_types=["int8"])).json()
    assert (plain["response_type"], len(plain["embeddings"][0])) == ("embeddings_floats", 2048)
    assert (typed["response_type"], list(typed["embeddings"])) == ("embeddings_by_type", ["int8"])
    assert plain["meta"]["api_version"] == {"version": "1"}


async def test_a_request_without_a_model_gets_the_default(engine: FakeEngine) -> None:
    settings = Settings(default_model=TEXT_MODEL.public_id)
    transport = httpx.ASGITransport(create_app(settings, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.post("/v1/embed", json={"texts": ["a"]})).status_code == 200
    assert engine.batches[0].model == TEXT_MODEL
