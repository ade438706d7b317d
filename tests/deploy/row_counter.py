"""A Triton model that takes as long as a graph would, and tells each request what its batch held."""

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

SECONDS_PER_RUN, SECONDS_PER_ROW = 0.002, 2e-5


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        rows = sum(pb_utils.get_input_tensor_by_name(request, "input_ids").shape()[1] for request in requests)
        time.sleep(SECONDS_PER_RUN + rows * SECONDS_PER_ROW)
        batch = pb_utils.Tensor("batch", np.array([[rows, len(requests)]], np.int64))
        return [pb_utils.InferenceResponse([batch]) for _ in requests]
