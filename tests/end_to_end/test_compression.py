"""Dimensions, embedding types and encodings over HTTP, compared bit by bit with NumPy."""

import base64
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from tests.end_to_end.samples import MINILM, TINY, image_url
from tests.service import Service

pytestmark = pytest.mark.triton

TEXTS = ["What is NVIDIA?", "pets and animals", "The weather is sunny today", "x", "Привет, мир", "日本語の文章"]
INPUTS = {MINILM: TEXTS, TINY: [image_url(0), image_url(4)]}
SIZES = [(MINILM, None), *((MINILM, size) for size in (32, 100, 128, 256, 383, 384)), (TINY, None), (TINY, 50)]
TYPES: dict[str, Any] = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}


def embed(service: Service, model: str, dimensions: int | None, **options: Any) -> list[Any]:
    body = {"model": model, "input": INPUTS[model], "dimensions": dimensions, **options}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return [entry["embedding"] for entry in response.json()["data"]]


def embed_floats(service: Service, model: str, dimensions: int | None) -> npt.NDArray[np.float32]:
    return np.array(embed(service, model, dimensions), np.float32)


def compress(vectors: npt.NDArray[np.float32], embedding_type: str) -> npt.NDArray[Any]:
    """Return the expected values: integers of the type, or the vectors themselves for `float`."""
    bits = np.packbits(vectors > 0, axis=-1).astype(int)
    whole = np.trunc(vectors.astype(float) * 127).astype(int)
    integers = {"int8": whole, "uint8": whole + 128, "ubinary": bits, "binary": bits - 128}
    return integers[embedding_type] if embedding_type in integers else vectors


@pytest.mark.parametrize(("model", "dimensions"), SIZES)
def test_cut_vectors_are_the_leading_components_at_unit_length(
    service: Service, model: str, dimensions: int | None
) -> None:
    whole, cut = embed_floats(service, model, None), embed_floats(service, model, dimensions)
    np.testing.assert_allclose(np.linalg.norm(cut.astype(float), axis=1), 1, atol=1e-6)
    if cut.shape == whole.shape:
        np.testing.assert_array_equal(cut, whole)
    else:
        leading = whole[:, :dimensions].astype(float)
        expected = leading / np.linalg.norm(leading, axis=1, keepdims=True)
        np.testing.assert_array_equal(cut, expected.astype(np.float32))


@pytest.mark.parametrize("embedding_type", TYPES)
@pytest.mark.parametrize(("model", "dimensions"), SIZES)
def test_every_type_in_both_encodings_equals_the_reference(
    service: Service, model: str, dimensions: int | None, embedding_type: str
) -> None:
    expected = compress(embed_floats(service, model, dimensions), embedding_type)
    numbers = embed(service, model, dimensions, embedding_type=embedding_type, encoding_format="float")
    encoded = embed(service, model, dimensions, embedding_type=embedding_type, encoding_format="base64")
    dtype = np.dtype(TYPES[embedding_type])
    decoded = np.stack([np.frombuffer(base64.b64decode(text, validate=True), dtype) for text in encoded])
    np.testing.assert_array_equal(np.array(numbers).astype(dtype), expected)
    np.testing.assert_array_equal(decoded, expected)


def test_binary_is_ubinary_minus_128(service: Service) -> None:
    binary, ubinary = (np.array(embed(service, MINILM, None, embedding_type=kind)) for kind in ("binary", "ubinary"))
    assert binary.shape == (len(TEXTS), 384 // 8)
    np.testing.assert_array_equal(binary, ubinary - 128)


@pytest.mark.parametrize("embedding_type", TYPES)
def test_a_text_alone_and_in_a_list_has_the_same_embedding(
    service: Service, sentences: list[str], embedding_type: str
) -> None:
    """As far as docs/api.md promises: the last digits of a float depend on its batch, and so may a rounded value."""
    options = {"embedding_type": embedding_type, "truncate": "END"}
    in_list = np.array(embed(service, MINILM, None, input=sentences, **options))[::4]
    alone = np.concatenate([embed(service, MINILM, None, input=sentence, **options) for sentence in sentences[::4]])
    assert in_list.shape == alone.shape and len(alone) == 50
    if embedding_type == "float":
        np.testing.assert_allclose(in_list, alone, rtol=0, atol=1e-5)
    elif embedding_type.endswith("binary"):
        bits = [np.unpackbits(values.astype(np.int16).astype(np.uint8)) for values in (in_list, alone)]
        assert np.mean(bits[0] != bits[1]) <= 1e-4
    else:
        assert np.abs(in_list - alone).max() <= 1
        assert np.mean(in_list != alone) <= 1e-4
