"""From the engine's vectors to what a client asked for: cut dimensions → normalise → quantize → encode.

Pure functions over whole batches. Each row's result depends on that row alone.
"""

import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.engine.interface import FloatVectors
from gateway.types import ComponentType, EncodingFormat, Endianness, Int8Scale, VectorFormat

INT8_LIMIT = 127.0
UNSIGNED_SHIFT = 128


def write_vectors(vectors: FloatVectors, vector_format: VectorFormat, int8_scale: Int8Scale) -> list[Any]:
    """Return the rows as they appear in the JSON response; see `encode`.

    Args:
        vectors: `(n, d)` of unit length.
        vector_format: With dimensions from 1 to d, or None for d.
        int8_scale: See `quantize`.
    """
    cut = cut_dimensions(vectors, vector_format.dimensions or vectors.shape[1])
    quantized = quantize(cut, vector_format.component_type, int8_scale)
    return encode(quantized, vector_format.encoding_format, vector_format.endianness)


def cut_dimensions(vectors: FloatVectors, dimensions: int) -> FloatVectors:
    """Keep the leading components, as Matryoshka training orders them, and normalise again.

    Args:
        vectors: `(n, d)` of unit length.
        dimensions: From 1 to d; d leaves the vectors as they are.

    Returns:
        `(n, dimensions)` float32.
    """
    if dimensions == vectors.shape[1]:
        return vectors
    return normalise(vectors[:, :dimensions])


def normalise(vectors: FloatVectors) -> FloatVectors:
    """Scale each row to unit length, computed in float64; a row of zeros stays as it is.

    Args:
        vectors: `(n, d)`.

    Returns:
        `(n, d)` float32.
    """
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.sum(exact * exact, axis=1, keepdims=True))
    unit: FloatVectors = (exact / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def quantize(vectors: FloatVectors, component_type: ComponentType, int8_scale: Int8Scale) -> npt.NDArray[Any]:
    """Convert normalised vectors to a smaller type.

    `int8` is `trunc(127·x)`, which reproduces the embedding NIM's published example (0.01252 → 1, -0.01266 → -1); with
    `absmax` each row is first divided by its largest magnitude. `uint8` is that plus 128. `ubinary` packs `x > 0`, most
    significant bit first; `binary` is the same minus 128.

    Args:
        vectors: `(n, d)` of unit length.
        component_type: Type of the result.
        int8_scale: `fixed` or `absmax`.

    Returns:
        `(n, d)` float32, float16, int8 or uint8, or `(n, ceil(d / 8))` int8 or uint8.
    """
    match component_type:
        case "float":
            return vectors
        case "float16":
            return vectors.astype(np.float16)
        case "int8":
            return scale_to_int8(vectors, int8_scale).astype(np.int8)
        case "uint8":
            return (scale_to_int8(vectors, int8_scale) + UNSIGNED_SHIFT).astype(np.uint8)
        case "binary":
            return (np.packbits(vectors > 0, axis=1).astype(np.int16) - UNSIGNED_SHIFT).astype(np.int8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)


def scale_to_int8(vectors: FloatVectors, int8_scale: Int8Scale) -> npt.NDArray[np.float64]:
    """Return whole numbers from -127 to 127, still as float64, in which 127·x of a float32 is exact."""
    exact = vectors.astype(np.float64)
    if int8_scale == "absmax":
        largest = np.max(np.abs(exact), axis=1, keepdims=True)
        exact = exact / np.where(largest > 0, largest, 1)
    scaled: npt.NDArray[np.float64] = np.trunc(INT8_LIMIT * exact)
    return scaled


def encode(values: npt.NDArray[Any], encoding_format: EncodingFormat, endianness: Endianness = "little") -> list[Any]:
    """Return rows as they appear in the JSON response.

    Args:
        values: `(n, k)`.
        encoding_format: `float` for numbers, `base64` for the bytes of the type.
        endianness: Order of these bytes.

    Returns:
        List of n one-dimensional arrays, which orjson writes directly, or of n strings.
    """
    contiguous = np.ascontiguousarray(values)
    if encoding_format == "float":
        return list(contiguous)
    ordered = contiguous.astype(contiguous.dtype.newbyteorder("<" if endianness == "little" else ">"), copy=False)
    return [binascii.b2a_base64(row.data, newline=False).decode("ascii") for row in ordered]
