"""Calls Triton's models directly, as anyone with tritonclient would."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype


def infer(triton: InferenceServerClient, model: str, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
    """Send one request.

    Args:
        triton: Connected client.
        model: Name of an ensemble or a step.
        arrays: Inputs as rows, without the leading 1; lists of strings or bytes become BYTES tensors.

    Returns:
        Output name to rows, without the leading 1.
    """
    inputs = []
    for name, values in arrays.items():
        array = np.array([values], dtype=np.object_) if isinstance(values, list) else values[np.newaxis]
        inputs.append(InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    result = triton.infer(model, inputs)
    return {tensor.name: result.as_numpy(tensor.name)[0] for tensor in result.get_response().outputs}
