"""The Triton backend `preprocess`: texts or images in, packed sequences and patches out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.append(str(Path(__file__).resolve().parent.parent))  # Triton adds only this folder to the path

from preprocess.items import ExpiredError, RequestError, Tensors, count_text_bytes
from preprocess.lane import Lane, find_large
from preprocess.steps import DecodeStep, RankStep, TextStep, load_step


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
        self.lane = Lane()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Process all text requests of a batch together, except large ones, which the others overtake; begin images.

        Returns:
            The responses, or None if they are sent as they complete.
        """
        batch = [read_tensors(request) for request in requests]
        if isinstance(self.step, DecodeStep):
            for request, tensors in zip(requests, batch, strict=True):
                respond_later(request, self.step.submit(tensors, read_timeout_s(request)))
            return None
        large = find_large(list(map(count_text_bytes, batch)))
        if not large:
            return [respond(result) for result in self.step.process(batch)]
        senders = [request.get_response_sender() for request in requests]
        small = [index for index in range(len(batch)) if index not in large]
        if small:
            process_texts(self.step, [batch[index] for index in small], [senders[index] for index in small])
        for index in large:
            # Their memory is freed with the request.
            tensors = {name: rows.copy() for name, rows in batch[index].items()}
            self.lane.start(partial(process_texts, self.step, [tensors], [senders[index]]))
        return None

    def finalize(self) -> None:
        """Stop the processes that the step has started, once the last request is answered."""
        self.lane.close()
        self.step.close()


def read_tensors(request: Any) -> Tensors:
    """Return the inputs present in the request, as rows."""
    return {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}


def process_texts(step: TextStep | RankStep, batch: Sequence[Tensors], senders: Sequence[Any]) -> None:
    """Process requests together and send their responses."""
    try:
        responses = [respond(result) for result in step.process(batch)]
    except Exception as error:  # in the lane, nobody else would answer
        pb_utils.Logger.log_error(f"preprocessing failed: {error}")
        failure = pb_utils.TritonError("the texts could not be tokenised")
        responses = [pb_utils.InferenceResponse(error=failure) for _ in senders]
    for sender, response in zip(senders, responses, strict=True):
        try:
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # the other responses can still be sent
            pb_utils.Logger.log_error(f"a response could not be sent: {error}")


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
    except Exception as error:
        pb_utils.Logger.log_error(f"preprocessing failed: {error}")
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError("the images could not be preprocessed", pb_utils.TritonError.INTERNAL)
        )


def respond(result: Tensors | RequestError) -> Any:
    """Return the Triton response of a step's result."""
    if isinstance(result, RequestError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(result), pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(rows[np.newaxis])) for name, rows in result.items()]
    )
