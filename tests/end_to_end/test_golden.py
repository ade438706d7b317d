"""The reference's 28 golden inputs, through the ensembles and the gateway, alone and in mixed batches."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient

from tests.end_to_end.samples import TINY, TINY_CHECKPOINT
from tests.service import Service
from tests.triton_requests import infer

pytestmark = pytest.mark.triton

TOLERANCE = 2e-4
INPUTS: list[dict[str, Any]] = json.loads((TINY_CHECKPOINT / "golden.json").read_text())
GOLDEN: npt.NDArray[np.float32] = np.load(TINY_CHECKPOINT / "golden.npy")
WITH_IMAGE = [index for index, item in enumerate(INPUTS) if item["image"] is not None]
QUERIES = [index for index, item in enumerate(INPUTS) if item["input_type"] == "query"]
PASSAGES = [index for index in range(len(INPUTS)) if index not in WITH_IMAGE and index not in QUERIES]


def read_image(index: int) -> bytes:
    path = TINY_CHECKPOINT / str(INPUTS[index]["image"])
    return path.read_bytes()


def request(index: int) -> tuple[str, dict[str, list[Any]]]:
    """Return the ensemble of a golden input, and the ensemble's inputs."""
    item = INPUTS[index]
    if index in WITH_IMAGE:
        return "tiny_checkpoint_image", {"image": [read_image(index)], "text": [item["text"] or ""]}
    return "tiny_checkpoint_text", {"text": [item["text"]], "input_type": [item["input_type"]]}


def check(result: dict[str, npt.NDArray[Any]], indices: list[int]) -> None:
    np.testing.assert_allclose(result["embeddings"], GOLDEN[indices], atol=TOLERANCE)
    assert result["token_counts"].tolist() == [INPUTS[index]["prompt_tokens"] for index in indices]
    if "tile_counts" in result:
        tiles = [INPUTS[index]["tiles"] for index in indices]
        assert result["tile_counts"].tolist() == tiles
        assert result["image_token_counts"].tolist() == [256 * count for count in tiles]


def test_the_golden_inputs_are_complete() -> None:
    assert len(INPUTS) == len(GOLDEN) == 28
    assert len(WITH_IMAGE) == 12 and QUERIES and PASSAGES


@pytest.mark.parametrize("index", range(len(INPUTS)))
def test_each_alone(triton: InferenceServerClient, index: int) -> None:
    model, arrays = request(index)
    check(infer(triton, model, **arrays), [index])


@pytest.mark.parametrize(("indices", "input_type"), [(QUERIES, "query"), (PASSAGES, "passage")])
def test_all_texts_in_one_request(triton: InferenceServerClient, indices: list[int], input_type: str) -> None:
    texts = [INPUTS[index]["text"] for index in indices]
    check(infer(triton, "tiny_checkpoint_text", text=texts, input_type=[input_type]), indices)


def test_all_images_in_one_request(triton: InferenceServerClient) -> None:
    images, texts = [read_image(index) for index in WITH_IMAGE], [INPUTS[index]["text"] or "" for index in WITH_IMAGE]
    check(infer(triton, "tiny_checkpoint_image", image=images, text=texts), WITH_IMAGE)


def content(index: int) -> str | dict[str, Any]:
    """Return a golden input as an item of a gateway request."""
    text = INPUTS[index]["text"]
    if index not in WITH_IMAGE:
        return str(text)
    url = "data:image/png;base64," + base64.b64encode(read_image(index)).decode()
    parts = [{"type": "text", "text": text}] if text else []
    return {"content": [*parts, {"type": "image_url", "image_url": {"url": url}}]}


@pytest.mark.parametrize(("indices", "input_type"), [(QUERIES, "query"), (sorted(PASSAGES + WITH_IMAGE), "passage")])
def test_modalities_mixed_in_one_gateway_request(service: Service, indices: list[int], input_type: str) -> None:
    body = {"model": TINY, "input": [content(index) for index in indices], "input_type": input_type}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60).json()
    vectors = np.array([entry["embedding"] for entry in response["data"]], dtype=np.float32)
    np.testing.assert_allclose(vectors, GOLDEN[indices], atol=TOLERANCE)
    assert response["usage"]["prompt_tokens"] == sum(INPUTS[index]["prompt_tokens"] for index in indices)
    images = sum(256 * INPUTS[index]["tiles"] for index in indices)
    assert response["usage"]["prompt_tokens_details"]["image_tokens"] == images


@pytest.mark.slow
def test_2000_items_from_64_clients(service: Service) -> None:
    """Mix texts and images in the same batches, and check every component and count.

    Each text request carries an unread NaN row, so that reading or counting it by mistake shows.
    """
    rng = np.random.default_rng(0)
    order = rng.choice([*QUERIES, *PASSAGES] * 24 + WITH_IMAGE, size=2000)  # about 60 with an image
    parts = np.array_split(order, 64)

    def send(part: npt.NDArray[np.int64]) -> None:
        with InferenceServerClient(service.grpc_url) as client:
            for index in part.tolist():
                model, arrays = request(index)
                check(infer(client, model, **arrays), [index])

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(send, parts))
