"""Every step against plain NumPy, and the numbers the sources publish."""

import base64
from typing import Literal

import numpy as np
import pytest

from gateway.core.postprocess import cut_dimensions, encode, normalise, quantize, write_vectors
from gateway.types import EmbeddingType, Endianness, VectorFormat


@pytest.fixture
def vectors() -> np.ndarray:
    return normalise(np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32))


def test_cut_vectors_have_unit_length(vectors: np.ndarray) -> None:
    cut = cut_dimensions(vectors, 40)
    assert cut.shape == (5, 40)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)
    expected = vectors[:, :40].astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_array_equal(cut, expected.astype(np.float32))


def test_full_size_leaves_vectors_untouched(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(cut_dimensions(vectors, 64), vectors)


def test_zero_vector_stays_zero() -> None:
    np.testing.assert_array_equal(normalise(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))


def test_int8_reproduces_the_published_example() -> None:
    published = np.array([[0.012519836, -0.0126571655, 0.0101623535]], np.float32)
    assert quantize(published, "int8", "fixed").tolist() == [[1, -1, 1]]


def test_uint8_is_int8_plus_128(vectors: np.ndarray) -> None:
    int8 = quantize(vectors, "int8", "fixed")
    uint8 = quantize(vectors, "uint8", "fixed")
    assert (int8.dtype, uint8.dtype) == (np.dtype(np.int8), np.dtype(np.uint8))
    np.testing.assert_array_equal(uint8.astype(int), int8.astype(int) + 128)
    np.testing.assert_array_equal(int8, np.trunc(127 * vectors.astype(np.float64)))


def test_absmax_uses_the_whole_range_of_each_row(vectors: np.ndarray) -> None:
    int8 = quantize(vectors, "int8", "absmax")
    np.testing.assert_array_equal(np.abs(int8.astype(int)).max(axis=1), 127)
    cosines = np.sum(normalise(int8.astype(np.float32)) * vectors, axis=1)
    assert cosines.min() > 0.999


def test_extreme_components_do_not_overflow() -> None:
    unit = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    assert quantize(unit, "int8", "fixed").tolist() == [[127, 0], [-127, 0]]
    assert quantize(unit, "uint8", "fixed").tolist() == [[255, 128], [1, 128]]


def test_binary_packs_signs_most_significant_first() -> None:
    vector = np.array([[1, -1, 1, 0, -1, -1, -1, 1, 1]], np.float32)
    assert quantize(vector, "ubinary", "fixed").tolist() == [[0b10100001, 0b10000000]]
    assert quantize(vector, "binary", "fixed").tolist() == [[0b10100001 - 128, 0]]


def test_quantized_rows_do_not_depend_on_the_batch(vectors: np.ndarray) -> None:
    for kind in ("float", "int8", "uint8", "binary", "ubinary"):
        whole = quantize(cut_dimensions(vectors, 33), kind, "absmax")
        alone = quantize(cut_dimensions(vectors[2:3], 33), kind, "absmax")
        np.testing.assert_array_equal(whole[2:3], alone)


@pytest.mark.parametrize("kind", ["float", "int8", "uint8", "binary", "ubinary"])
def test_base64_holds_the_same_numbers(vectors: np.ndarray, kind: EmbeddingType) -> None:
    values = quantize(cut_dimensions(vectors, 48), kind, "fixed")
    for row, text in zip(encode(values, "float"), encode(values, "base64"), strict=True):
        decoded = np.frombuffer(base64.b64decode(text), values.dtype)
        np.testing.assert_array_equal(decoded, row)


@pytest.mark.parametrize(("endianness", "mark"), [("little", "<"), ("big", ">")])
@pytest.mark.parametrize(("component_type", "dtype"), [("float", "f4"), ("float16", "f2")])
def test_base64_is_written_in_the_requested_byte_order(
    vectors: np.ndarray, component_type: Literal["float", "float16"], dtype: str, endianness: Endianness, mark: str
) -> None:
    texts = write_vectors(vectors, VectorFormat(40, component_type, "base64", endianness), "fixed")
    decoded = np.stack([np.frombuffer(base64.b64decode(text), mark + dtype) for text in texts])
    np.testing.assert_array_equal(decoded, cut_dimensions(vectors, 40).astype(dtype))
