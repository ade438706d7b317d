"""Dual encoders side by side in one Triton, alone, mixed and under load, against transformers."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from export.checkpoint import Checkpoint
from export.tokenizer import load_tokenizer
from export.validation.dual_encoder import embed_with_transformers
from tests.export.tiny_dual_encoders import WRITERS
from tests.pdf_files import fill, make_pdf
from tests.preprocess.image_files import draw_scene, encode
from tests.sentences import load_sentences
from tests.service import Service, export_all, run_service
from tests.triton_requests import infer

pytestmark = [pytest.mark.triton, pytest.mark.slow]

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "siglip": {
        "text": {"hidden_size": 48, "num_attention_heads": 6, "max_position_embeddings": 33},
        "vision": {"hidden_size": 48, "num_attention_heads": 2, "image_size": 45, "patch_size": 7},
    },
    "clip": {
        "text": {"hidden_size": 40, "num_attention_heads": 5, "hidden_act": "gelu"},
        "vision": {"hidden_size": 36, "num_attention_heads": 3, "image_size": 48, "patch_size": 12},
    },
}
PADDING = {"siglip": 33}
"""Tokens of a padded text."""
PATCHES = {"siglip": 36, "clip": 16}
SIDES = ((45, 45), (200, 64), (31, 90), (17, 400), (640, 480), (48, 48))


@dataclass(frozen=True)
class Samples:
    """What is embedded, and its vectors by transformers."""

    texts: list[str]
    images: list[str]
    text_vectors: np.ndarray
    image_vectors: np.ndarray

    def items(self) -> list[tuple[str, np.ndarray]]:
        """Return texts and images with their vectors, one of each in turn."""
        texts = zip(self.texts, self.text_vectors, strict=True)
        images = zip(self.images, self.image_vectors, strict=True)
        return [item for pair in zip(texts, images, strict=True) for item in pair]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: write(folder / kind, **SIZES[kind]) for kind, write in WRITERS.items()}


@pytest.fixture(scope="module")
def service(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("models") / "repository"
    export_all({f"tiny/{kind}": folder for kind, folder in checkpoints.items()}, repository)
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def samples(checkpoints: dict[str, Path]) -> dict[str, Samples]:
    texts = [sentence[: 1 + 5 * index] for index, sentence in enumerate(load_sentences()[: len(SIDES)])]
    scenes = [draw_scene(*size) for size in SIDES]
    urls = [data_url(encode(scene, "PNG")) for scene in scenes]
    return {
        kind: Samples(texts, urls, *embed_with_transformers(Checkpoint(folder), tokenize(folder, kind, texts), scenes))
        for kind, folder in checkpoints.items()
    }


def tokenize(folder: Path, kind: str, texts: list[str]) -> list[list[int]]:
    """Tokenise texts as transformers does for the model: lowered and padded for SigLIP."""
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if kind in PADDING:
        tokenizer.enable_padding(length=PADDING[kind], pad_id=0)
    return [tokenizer.encode(text.lower() if kind in PADDING else text).ids for text in texts]


def data_url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(file).decode()


def embed(service: Service, kind: str, items: list[Any], **fields: object) -> dict[str, Any]:
    body = {"model": f"tiny/{kind}", "input": items, "input_type": "passage", **fields}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def read_vectors(answer: dict[str, Any]) -> np.ndarray:
    return np.array([entry["embedding"] for entry in answer["data"]])


@pytest.mark.parametrize("kind", WRITERS)
def test_similarities_of_texts_and_images_equal_transformers(
    service: Service, samples: dict[str, Samples], kind: str
) -> None:
    sample = samples[kind]
    texts, images = (read_vectors(embed(service, kind, items)) for items in (sample.texts, sample.images))
    np.testing.assert_allclose(texts @ images.T, sample.text_vectors @ sample.image_vectors.T, atol=1e-4)


async def test_vectors_equal_transformers_under_load(service: Service, samples: dict[str, Samples]) -> None:
    async with httpx.AsyncClient(base_url=service.http_url, timeout=120) as http:

        async def embed_slice(kind: str, start: int, stop: int) -> None:
            items = samples[kind].items()[start:stop]
            body = {"model": f"tiny/{kind}", "input": [item for item, _ in items]}
            response = await http.post("/v1/embeddings", json=body)
            assert response.status_code == 200, response.text
            np.testing.assert_allclose(read_vectors(response.json()), [vector for _, vector in items], atol=1e-4)

        pieces = [(0, 1), (1, 2), (2, 5), (5, 12), (0, 12)]
        await asyncio.gather(*(embed_slice(kind, *piece) for _ in range(6) for kind in WRITERS for piece in pieces))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_text_counts_without_padding_and_an_image_by_its_patches(service: Service, kind: str) -> None:
    image = data_url(encode(draw_scene(64, 64), "PNG"))
    assert embed(service, kind, ["abc"])["usage"]["prompt_tokens"] == 5
    assert embed(service, kind, [image])["usage"]["prompt_tokens"] == PATCHES[kind]
    body = {"model": f"tiny/{kind}", "input": ["abc", image, "a" * 100]}
    found = httpx.post(f"{service.http_url}/v1/tokenize", json=body, timeout=60).json()["data"]
    assert [entry["tokens"] for entry in found] == [5, PATCHES[kind], 102]
    assert [len(entry["token_ids"]) for entry in found] == [5, 0, PADDING.get(kind, 48)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_image_fails_alone(service: Service, samples: dict[str, Samples], kind: str) -> None:
    good = samples[kind].images[1]
    damaged = data_url(base64.b64decode(good.partition(",")[2])[:-40])
    data = embed(service, kind, [damaged, good, damaged], on_error="item")["data"]
    assert [entry["embedding"] is None for entry in data] == [True, False, True]
    np.testing.assert_allclose(data[1]["embedding"], samples[kind].image_vectors[1], atol=1e-4)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_text_beside_an_image_is_refused(service: Service, kind: str) -> None:
    image = data_url(encode(draw_scene(64, 64), "PNG"))
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": image}}]
    body = {"model": f"tiny/{kind}", "input": [{"content": parts}]}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 400
    assert "the model embeds each by itself, in one space; send them as two items" in response.text


def test_pages_of_a_pdf_are_embedded(service: Service) -> None:
    pdf = data_url(make_pdf([fill(1, 0, 0), fill(0, 0, 1)]), "application/pdf")
    red, blue = read_vectors(embed(service, "clip", [pdf]))
    image = data_url(encode(Image.new("RGB", (200, 300), (255, 0, 0)), "PNG"))
    [same] = read_vectors(embed(service, "clip", [image]))
    assert red @ same > 0.9999 > blue @ same


def test_an_absurdly_long_image_is_refused(service: Service) -> None:
    image = data_url(encode(Image.new("L", (16384, 1)), "PNG"))
    body = {"model": "tiny/clip", "input": [image]}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 400 and "16384x1 pixels: too long and narrow" in response.text


def test_a_malformed_request_to_the_image_tower_is_refused(service: Service) -> None:
    """The embedded backend checks row counts, as it does for texts."""
    patches = np.zeros((2 * PATCHES["clip"], 12 * 12 * 3), np.uint8)
    with InferenceServerClient(service.grpc_url) as triton:
        for image_rows in ([PATCHES["clip"]], [1] * 2 * PATCHES["clip"]):
            with pytest.raises(InferenceServerException, match=r"must add up|cannot process"):
                infer(triton, "clip_vision_encoder", patches=patches, image_rows=np.array(image_rows, np.int32))
        rows = np.full(2, PATCHES["clip"], np.int32)
        assert infer(triton, "clip_vision_encoder", patches=patches, image_rows=rows)["embeddings"].shape == (2, 20)


def test_metadata_names_what_the_models_take(service: Service) -> None:
    models = httpx.get(f"{service.http_url}/v1/metadata").json()["models"]
    assert {model["id"]: (model["modalities"], model["tokens_per_tile"]) for model in models} == {
        f"tiny/{kind}": (["text", "image"], PATCHES[kind]) for kind in WRITERS
    }
