"""The Triton backend `preprocess`: texts or images in, packed sequences and patches out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).resolve().parent.parent))  # Triton adds only this folder to the path

from preprocess.items import RequestError, Tensors
from preprocess.steps import load_step


class TritonPythonModel:
    """One instance of one model's text or image step."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the configuration unchanged: it is complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and, for images, start the decoders."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        version_dir = Path(args["model_repository"]) / args["model_version"]
        self.step = load_step(version_dir, parameters)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Process all requests of a batch together."""
        results = self.step.process([read_tensors(request) for request in requests])
        return [respond(result) for result in results]

    def finalize(self) -> None:
        """Stop the processes that the step has started."""
        self.step.close()


def read_tensors(request: Any) -> Tensors:
    """Return the inputs present in the request, as rows."""
    return {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}


def respond(result: Tensors | RequestError) -> Any:
    """Return the Triton response of a step's result."""
    if isinstance(result, RequestError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(rows[np.newaxis])) for name, rows in result.items()]
    )
