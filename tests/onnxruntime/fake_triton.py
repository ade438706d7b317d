"""The parts of `triton_python_backend_utils`, a module that only Triton's stub has, that the backend uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINAL = 1


@dataclass
class Tensor:
    """A named tensor."""

    name: str
    values: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.values


@dataclass
class TritonError:
    """An error response's content."""

    INVALID_ARG = 3

    message: str
    code: int


@dataclass
class InferenceResponse:
    """A response with outputs or an error."""

    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


@dataclass
class Request:
    """A request that collects the responses sent to it."""

    tensors: list[Tensor]
    sent: list[InferenceResponse] = field(default_factory=list)

    @classmethod
    def of(cls, input_ids: list[int], sequence_lengths: list[int]) -> Request:
        """Return a request with these rows."""
        ids, lengths = np.array([input_ids], np.int64), np.array([sequence_lengths], np.int32)
        return cls([Tensor("input_ids", ids), Tensor("sequence_lengths", lengths)])

    def get_response_sender(self) -> Request:
        return self

    def send(self, response: InferenceResponse, flags: int) -> None:
        assert flags == FINAL
        self.sent.append(response)


class Logger:
    """Discards what is logged."""

    @staticmethod
    def log_error(message: str) -> None: ...


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return next((tensor for tensor in request.tensors if tensor.name == name), None)


def make_module() -> ModuleType:
    """Return the module to be imported in place of Triton's."""
    module = ModuleType("triton_python_backend_utils")
    vars(module).update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=InferenceResponse,
        Logger=Logger,
        get_input_tensor_by_name=get_input_tensor_by_name,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    )
    return module
