"""Triton's wire form of tensors: what goes into `raw_input_contents` and comes out of `raw_output_contents`.

Written over the generated protobuf messages: tritonclient's `InferInput` and `InferResult` want NumPy object arrays for
BYTES and search lists by name.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from gateway.errors import EngineFaultError

BYTES_LENGTH = struct.Struct("<I")
"""Each element of a BYTES tensor stands behind its length."""

DTYPE_OF_TRITON: Mapping[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}


def encode_bytes(values: Iterable[bytes]) -> bytes:
    """The content of a BYTES tensor."""
    return b"".join([part for value in values for part in (BYTES_LENGTH.pack(len(value)), value)])


def decode_bytes(raw: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor.

    Args:
        raw: its content.
        count: how many elements its shape promises.

    Raises:
        EngineFaultError: the content does not hold exactly that many.
    """
    values = []
    offset = 0
    try:
        for _ in range(count):
            (length,) = BYTES_LENGTH.unpack_from(raw, offset)
            offset += BYTES_LENGTH.size
            values.append(raw[offset : offset + length])
            offset += length
    except struct.error as error:
        raise EngineFaultError("the engine failed") from error
    if offset != len(raw):
        raise EngineFaultError("the engine failed")
    return values


class InferRequest:
    """A ModelInfer message in the making.

    Attributes:
        message: the protobuf message.
    """

    def __init__(self, model_name: str) -> None:
        """Starts a message without inputs, for any version of the model.

        Args:
            model_name: name of the Triton model.
        """
        self.message: Any = service_pb2.ModelInferRequest(model_name=model_name)

    def add_bytes(self, name: str, values: Sequence[bytes]) -> None:
        """Adds a BYTES input of shape `[1, n]`."""
        self._add(name, "BYTES", len(values), encode_bytes(values))

    def add_integers(self, name: str, datatype: str, values: npt.NDArray[Any]) -> None:
        """Adds an INT32 or INT64 input of shape `[1, n]` from a vector of n."""
        self._add(name, datatype, len(values), values.astype(DTYPE_OF_TRITON[datatype]).tobytes())

    def _add(self, name: str, datatype: str, count: int, raw: bytes) -> None:
        self.message.inputs.add(name=name, datatype=datatype, shape=(1, count))
        self.message.raw_input_contents.append(raw)


class InferResponse:
    """A ModelInfer answer, read by output name."""

    def __init__(self, message: Any) -> None:
        """Indexes the outputs.

        Args:
            message: a `ModelInferResponse` with raw contents.
        """
        raws = message.raw_output_contents
        self._outputs = {output.name: (output, raw) for output, raw in zip(message.outputs, raws, strict=False)}

    def array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A numeric output, read-only.

        Args:
            name: of the output.
            shape: what it must be, without Triton's leading 1.

        Raises:
            EngineFaultError: there is none, or its shape or size is another.
        """
        found = self._outputs.get(name)
        if found is None or tuple(found[0].shape) != (1, *shape) or found[0].datatype not in DTYPE_OF_TRITON:
            raise EngineFaultError("the engine failed")
        values: npt.NDArray[Any] = np.frombuffer(found[1], dtype=DTYPE_OF_TRITON[found[0].datatype])
        if values.size != math.prod(shape):
            raise EngineFaultError("the engine failed")
        return values.reshape(shape)

    def texts(self, name: str, count: int) -> list[str]:
        """A BYTES output of UTF-8, or empty texts where the output is absent.

        Args:
            name: of the output.
            count: how many elements it must have.

        Raises:
            EngineFaultError: it has another number of them.
        """
        found = self._outputs.get(name)
        if found is None:
            return [""] * count
        return [value.decode("utf-8", "replace") for value in decode_bytes(found[1], count)]
