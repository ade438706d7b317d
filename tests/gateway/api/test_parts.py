"""Items with several vectors: parts, PDFs and outputs; and images as queries."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.engine import ItemFailure
from gateway.settings import Settings
from gateway.types import ImageItem, Item, TextImageItem, TextItem, TokensItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL, IMAGE, post
from tests.pdf_files import make_pdf

PDF = make_pdf(["", "", ""])
PDF_URL = "data:application/pdf;base64," + base64.b64encode(PDF).decode()
TEXT_PART = {"type": "text", "text": "a"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}
PDF_PART = {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF_URL}}


def block(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"content": list(parts)}


def vector(item: Item) -> np.ndarray:
    return fake_vector(item, "passage", 2048)


def page(number: int) -> np.ndarray:
    return vector(ImageItem(PDF, number))


def mean(*vectors: np.ndarray) -> np.ndarray:
    total = np.sum(vectors, axis=0, dtype=np.float64)
    return total / np.linalg.norm(total)


def places(response: httpx.Response) -> list[tuple[Any, ...]]:
    entries = response.json()["data"]
    return [tuple(entry.get(name) for name in ("index", "part", "page", "output")) for entry in entries]


def vectors(response: httpx.Response) -> np.ndarray:
    return np.array([entry["embedding"] for entry in response.json()["data"]])


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
async def test_mean_is_the_normalised_mean_of_the_parts(client: httpx.AsyncClient, path: str) -> None:
    inputs = ["b", block(TEXT_PART, IMAGE_PART, {"type": "text", "text": "c"}), block(IMAGE_PART), block(PDF_PART)]
    response = await client.post(path, json={"model": IMAGE_MODEL.public_id, "input": inputs, "combine": "mean"})
    assert places(response) == [(index, None, None, None) for index in range(4)]
    parts = [vector(TextItem("a")), vector(ImageItem(IMAGE)), vector(TextItem("c"))]
    expected = [vector(TextItem("b")), mean(*parts), parts[1], mean(page(1), page(2), page(3))]
    np.testing.assert_allclose(vectors(response), expected, atol=1e-7)


async def test_none_returns_the_vector_of_each_part(client: httpx.AsyncClient) -> None:
    response = await post(client, input=[block(IMAGE_PART, TEXT_PART, PDF_PART), "b"], combine="none")
    parts = [(0, 0, None, None), (0, 1, None, None), *((0, 2, number, None) for number in (1, 2, 3))]
    assert places(response) == [*parts, (1, None, None, None)]
    expected = [vector(ImageItem(IMAGE)), vector(TextItem("a")), page(1), page(2), page(3), vector(TextItem("b"))]
    np.testing.assert_allclose(vectors(response), expected, atol=1e-7)


async def test_token_ids_are_one_part(client: httpx.AsyncClient) -> None:
    response = await post(client, input=[[5, 6], [7]], combine="mean")
    np.testing.assert_allclose(vectors(response), [vector(TokensItem([5, 6])), vector(TokensItem([7]))], atol=1e-7)


@pytest.mark.parametrize(
    "item", [PDF_URL, block(PDF_PART), block({"type": "image_url", "image_url": {"url": PDF_URL}})]
)
async def test_a_pdf_has_a_vector_per_page(client: httpx.AsyncClient, item: object) -> None:
    response = await post(client, input=["b", item, DATA_URL])
    pages = [(1, None, number, None) for number in (1, 2, 3)]
    assert places(response) == [(0, None, None, None), *pages, (2, None, None, None)]
    expected = [vector(TextItem("b")), page(1), page(2), page(3), vector(ImageItem(IMAGE))]
    np.testing.assert_allclose(vectors(response), expected, atol=1e-7)


async def test_without_combine_text_and_image_share_a_vector(client: httpx.AsyncClient) -> None:
    response = await post(client, input=[block(TEXT_PART, IMAGE_PART)])
    assert set(response.json()["data"][0]) == {"object", "index", "embedding"}
    np.testing.assert_allclose(vectors(response), [vector(TextImageItem("a", IMAGE))], atol=1e-7)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": [block(IMAGE_PART, IMAGE_PART)]}, 'input[0] has more than one image; combine "mean" or "none"'),
        ({"input": [block(PDF_PART, TEXT_PART)]}, 'input[0] has text beside a PDF; combine "mean" or "none"'),
        ({"input": [block(TEXT_PART, {"type": "text", "text": " "})], "combine": "mean"}, "input[0] must not be blank"),
        ({"input": PDF_URL, "modality": "text_image"}, "input[0] is a PDF, and its modality is 'text_image'"),
        ({"input": [block(PDF_PART)], "modality": "text"}, "input[0] is a PDF, and its modality is 'text'"),
        ({"input": "data:application/pdf,x"}, "input[0] is not a valid PDF data URL"),
        ({"input": "data:application/pdf;base64,@"}, "input[0] has a PDF data URL that is not valid base64"),
        ({"input": "data:application/pdf;base64,"}, "input[0] has a PDF data URL without content"),
        ({"input": PDF_URL, "input_type": "query"}, 'input_type="query" is not supported with images'),
        ({"input": PDF_URL, "model": TEXT_MODEL.public_id}, "input[0] has an image, and the model takes text only"),
        ({"input": "a", "combine": "sum"}, "combine must be one of 'mean', 'none'; got 'sum'"),
        ({"input": [block({"type": "file", "file": {}})]}, "input[0] has a content part that is neither"),
        ({"input": [block({"type": "file", "file": {"file_id": "a"}})]}, "input[0] has a file with fields other than"),
        ({"input": "a", "outputs": []}, "outputs must be an array of 1 to 16 objects"),
        ({"input": "a", "outputs": [{"dimensions": 0}]}, "outputs must be an array of 1 to 16 objects"),
        ({"input": "a", "outputs": [{"dimensions": 4096}]}, "dimensions must be from 128 to 2048"),
        ({"input": "a", "outputs": [{}], "dimensions": 256}, "outputs excludes dimensions and embedding_type"),
        ({"input": [block(*[TEXT_PART] * 2049)], "combine": "none"}, "input must have at most 2048 items, parts"),
    ],
)
async def test_refusals_say_what_to_do(client: httpx.AsyncClient, body: dict[str, Any], message: str) -> None:
    response = await post(client, **body)
    assert response.status_code == 400
    assert response.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pdf_pages": 2}, "input[1] is a PDF of 3 pages, more than this server's limit of 2"),
        ({"max_pdf_pages": 0}, "input[1] is a PDF, which this server does not accept"),
        ({"max_images": 2}, "input must have at most 2 images, pages of PDFs included"),
    ],
)
async def test_pages_are_limited(engine: FakeEngine, limits: dict[str, Any], message: str) -> None:
    transport = httpx.ASGITransport(create_app(Settings(**limits), engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await post(client, input=["a", PDF_URL])
        good = await post(client, input=["a"])
    assert (response.status_code, response.json()["message"]) == (400, message)
    assert good.status_code == 200


async def test_a_part_that_fails_ends_its_item_only(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_item = lambda item: ItemFailure("pdf_invalid", "is bad") if item == ImageItem(PDF, 2) else None
    inputs = [block(TEXT_PART, IMAGE_PART), block(TEXT_PART, PDF_PART), "b"]
    response = await post(client, input=inputs, combine="none", on_error="item")
    assert places(response) == [(0, 0, None, None), (0, 1, None, None), (1, None, None, None), (2, None, None, None)]
    failed = response.json()["data"][2]
    assert failed["embedding"] is None
    assert failed["error"]["message"] == "input[1]: page 2: is bad"
    response = await post(client, input=inputs, combine="none")
    assert (response.status_code, response.json()["message"]) == (400, "input[1]: page 2: is bad")


async def test_every_item_may_fail(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_item = lambda item: ItemFailure("pdf_invalid", "is bad") if isinstance(item, ImageItem) else None
    response = await post(client, input=[PDF_URL, block(PDF_PART)], combine="mean", on_error="item")
    assert [entry["error"]["message"] for entry in response.json()["data"]] == ["input[0]: is bad", "input[1]: is bad"]


async def test_usage_counts_every_page(client: httpx.AsyncClient) -> None:
    response = await post(client, input=PDF_URL)
    assert response.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 3 * 256


async def test_tokenize_counts_parts_and_pages(client: httpx.AsyncClient) -> None:
    body = {"model": IMAGE_MODEL.public_id, "input": [block(TEXT_PART, PDF_PART), "b"], "combine": "none"}
    response = await client.post("/v1/tokenize", json=body)
    pages = [(0, 1, number) for number in (1, 2, 3)]
    found = [(entry["index"], entry["part"], entry["page"]) for entry in response.json()["data"]]
    assert found == [(0, 0, None), *pages, (1, None, None)]


async def test_outputs_are_written_from_one_pass(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    outputs = [
        {"dimensions": 256},
        {"embedding_type": "int8"},
        {"embedding_type": "float", "encoding_format": "base64"},
    ]
    response = await post(client, input=["a", "b"], outputs=outputs)
    assert len(engine.batches) == 1
    assert places(response) == [(index, None, None, output) for index in (0, 1) for output in (0, 1, 2)]
    short, int8, encoded = [entry["embedding"] for entry in response.json()["data"][3:]]
    exact = vector(TextItem("b"))
    np.testing.assert_allclose(short, exact[:256] / np.linalg.norm(exact[:256]), atol=1e-7)
    np.testing.assert_array_equal(int8, np.trunc(127 * exact.astype(float)))
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), exact)


async def test_one_output_has_the_plain_shape(client: httpx.AsyncClient) -> None:
    response = await post(client, input="a", outputs=[{"dimensions": 256}])
    assert [set(entry) for entry in response.json()["data"]] == [{"object", "index", "embedding"}]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", {"input": DATA_URL}, 400),
        ("/api/v1/embeddings", {"input": DATA_URL}, 200),
        ("/api/v1/embeddings", {"input": [block(TEXT_PART, IMAGE_PART)]}, 200),
        ("/v2/embed", {"images": [DATA_URL]}, 200),
    ],
)
async def test_images_may_be_queries_outside_the_nims_api(
    engine: FakeEngine, path: str, body: dict[str, Any], status: int
) -> None:
    input_type = "search_query" if path == "/v2/embed" else "query"
    body |= {"model": IMAGE_MODEL.public_id, "input_type": input_type}
    for settings, expected in ((Settings(image_queries=True), status), (Settings(), 400)):
        transport = httpx.ASGITransport(create_app(settings, engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            assert (await client.post(path, json=body)).status_code == expected


async def test_cohere_refuses_pdfs(client: httpx.AsyncClient) -> None:
    response = await client.post("/v2/embed", json={"model": IMAGE_MODEL.public_id, "images": [PDF_URL]})
    assert response.status_code == 400
    assert "input[0] is a PDF" in response.text
