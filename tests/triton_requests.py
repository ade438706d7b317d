"""Call Triton's models directly, by tritonclient."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype


def infer(triton: InferenceServerClient, model: str, **arrays: Any) -> dict[str, npt.NDArray[Any]]:
    """Send one inference request.

    Args:
        triton: A connected client.
        model: Name of an ensemble or a step.
        arrays: Inputs by name, without the leading dimension of 1; lists of strings or bytes become BYTES tensors.

    Returns:
        The outputs by name, without the leading dimension of 1.
    """
    inputs = []
    for name, values in arrays.items():
        array = np.array([values], dtype=np.object_) if isinstance(values, list) else values[np.newaxis]
        inputs.append(InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    result = triton.infer(model, inputs)
    return {tensor.name: result.as_numpy(tensor.name)[0] for tensor in result.get_response().outputs}
