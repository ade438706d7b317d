"""The Triton backend `preprocess`: texts or images in, packed sequences and patches out."""

from __future__ import annotations

import json
import logging
import math
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).resolve().parent.parent))  # Triton adds only this folder to the path

from preprocess.items import ExpiredError, RequestError, Tensors
from preprocess.steps import ImageStep, load_step

log = logging.getLogger(__name__)


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
        """Process all requests of a batch: texts together; images are only begun, and each request is answered alone.

        Returns:
            The responses, or None for each request that is answered later.
        """
        if isinstance(self.step, ImageStep):
            for request in requests:
                respond_later(request, self.step.submit(read_tensors(request), read_timeout_s(request)))
            return [None] * len(requests)
        results = self.step.process([read_tensors(request) for request in requests])
        return [respond(result) for result in results]

    def finalize(self) -> None:
        """Stop the processes that the step has started."""
        self.step.close()


def read_tensors(request: Any) -> Tensors:
    """Return the inputs present in the request, as rows."""
    return {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}


def read_timeout_s(request: Any) -> float:
    """Return the seconds for which the client waits, from Triton's request parameter `timeout`."""
    timeout_us = request.timeout()
    return timeout_us / 1e6 if timeout_us else math.inf


def respond_later(request: Any, result: Future[Tensors | RequestError]) -> None:
    """Send the response once there is a result; Triton goes on to the next batch."""
    sender = request.get_response_sender()

    def send(done: Future[Tensors | RequestError]) -> None:
        sender.send(respond_to(done), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    result.add_done_callback(send)


def respond_to(done: Future[Tensors | RequestError]) -> Any:
    """Return the Triton response of a result that may be an exception."""
    try:
        return respond(done.result())
    except ExpiredError as error:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.UNAVAILABLE))
    except Exception:
        log.exception("an image request failed")
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError("the image step failed", pb_utils.TritonError.INTERNAL)
        )


def respond(result: Tensors | RequestError) -> Any:
    """Return the Triton response of a step's result."""
    if isinstance(result, RequestError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(rows[np.newaxis])) for name, rows in result.items()]
    )
