"""ONNX Runtime as a Python-based Triton backend, for Triton builds without the native one.

It behaves like the native backend: each ragged input of a batch is concatenated into one 1-D tensor for the graph, and
`batch_output` scatters the rows of the result back to the requests. So the same `config.pbtxt` and `model.onnx` work
with either.

Unlike the native backend it validates requests: one whose row counts do not add up, or that has an empty ragged tensor,
is refused before it can shift the rows of other requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from graph import Graph, count_lanes  # Triton adds this folder to the path
from lanes import Lanes, lower_priority
from numpy.typing import NDArray

# The values of the first tensor add up to the number of rows of the second, where a graph has both (docs/contract.md).
ROW_COUNTS = (
    ("sequence_lengths", "input_ids"),
    ("sequence_lengths", "token_types"),
    ("image_rows", "image_embeds"),
    ("image_rows", "patches"),
)

CPU_ROWS_PER_RUN, GPU_ROWS_PER_RUN = 512, 8192
"""Maximum rows of a graph run shared by several requests; larger batches are split.

Matrix products of 512 rows saturate a CPU, and their operands stay in its caches: MiniLM embeds 908 texts per second in
runs of 480 rows and 816 in runs of 4050. Activations grow with the rows: 8192 tokens of the flagship take over a
gigabyte.
"""

MAX_INLINE_ROWS = 64
"""Batches up to this size run in Triton's thread if no lane is busy: handing them to a lane would take longer."""

Rows = dict[str, NDArray[Any]]
"""Input name to a request's rows, shaped `(rows, ...)`, without the leading 1 of Triton's shapes."""


class RequestError(Exception):
    """A request violates the contract. The client gets the message."""


@dataclass(frozen=True)
class Output:
    """An output tensor, and the input with as many rows."""

    name: str
    counted_by: str


class TritonPythonModel:
    """One instance of one ONNX model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the configuration unchanged: it is complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<version>/model.onnx` and check the configuration against its graph."""
        config = json.loads(args["model_config"])
        if config.get("optimization", {}).get("priority") == "PRIORITY_MIN":
            lower_priority()
        version_dir = Path(args["model_repository"]) / args["model_version"]
        path = version_dir / (config.get("default_model_filename") or "model.onnx")
        self.is_gpu = args["model_instance_kind"] == "GPU"
        self.rows_per_run = GPU_ROWS_PER_RUN if self.is_gpu else CPU_ROWS_PER_RUN
        lanes = 1 if self.is_gpu else count_lanes(path, config)
        self.graph = Graph(path, config, args, lanes)
        self.inputs = [declared["name"] for declared in config["input"]]
        self.outputs = scattered_outputs(config)
        check_graph(self.graph, config)
        self.lanes = Lanes(lanes)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Run a batch, and refuse its invalid requests.

        A small batch that arrives while no lane is busy runs immediately. Any other is handed to a lane, which sends
        each response as it completes; this method then returns as soon as a lane is free for the next batch. On a CPU
        a request too large to share a run can be overtaken by others.

        Returns:
            The responses, or None if the lanes send them.
        """
        accepted: dict[int, Rows] = {}
        responses: dict[int, Any] = {}
        for index, request in enumerate(requests):
            try:
                accepted[index] = self.read_rows(request)
            except RequestError as error:
                responses[index] = refuse(str(error), pb_utils.TritonError.INVALID_ARG)
        if sum(map(count_rows, accepted.values())) <= MAX_INLINE_ROWS and self.lanes.are_all_free:
            responses.update(self.infer(accepted, is_alone=True))
            return [responses[index] for index in range(len(requests))]
        senders = [request.get_response_sender() for request in requests]
        send(senders, responses)
        for part, count in split_batch(accepted, self.rows_per_run):
            is_large = count > self.rows_per_run and not self.is_gpu
            self.lanes.start(partial(self.infer_in_lane, senders, part), is_large=is_large)
        self.lanes.wait_for_free()
        return None

    def finalize(self) -> None:
        """Finish the runs in progress and free the sessions' memory."""
        self.lanes.close()
        del self.graph

    def read_rows(self, request: Any) -> Rows:
        """Return the request's inputs as rows.

        Raises:
            RequestError: A tensor has no rows, or not as many as its row counts add up to.
        """
        rows: Rows = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]
            if not len(tensor):
                raise RequestError(f"{name} has no rows: ragged tensors must not be empty")
            rows[name] = tensor.copy()  # its memory is freed with the request
        for counts, counted in ROW_COUNTS:
            if counts not in rows or counted not in rows:
                continue
            if (rows[counts] < 0).any() or rows[counts].sum(dtype=np.int64) != len(rows[counted]):
                raise RequestError(f"{counts} must add up to the {len(rows[counted])} rows of {counted}")
        return rows

    def infer_in_lane(self, senders: list[Any], accepted: dict[int, Rows], is_alone: bool) -> None:
        """Run the graph for some requests of a batch and send their responses."""
        send(senders, self.infer(accepted, is_alone))

    def infer(self, accepted: dict[int, Rows], is_alone: bool) -> dict[int, Any]:
        """Run the graph once for all requests; if that fails, once for each, so that only the faulty one fails."""
        if not accepted:
            return {}
        try:
            return dict(zip(accepted, self.run(list(accepted.values()), is_alone), strict=True))
        except Exception as error:
            if len(accepted) == 1:
                pb_utils.Logger.log_error(f"inference failed: {error}")
                index = next(iter(accepted))
                return {index: refuse("the model cannot process this request", pb_utils.TritonError.INVALID_ARG)}
        return {index: self.infer({index: rows}, is_alone)[index] for index, rows in accepted.items()}

    def run(self, batch: list[Rows], is_alone: bool) -> list[Any]:
        """Concatenate the requests' rows, run the graph, and split its rows into one response for each request."""
        feeds = {name: concatenate([rows[name].reshape(-1) for rows in batch]) for name in self.inputs}
        results = self.graph.run([output.name for output in self.outputs], feeds, is_alone)
        split: list[list[Any]] = [[] for _ in batch]
        for output, result in zip(self.outputs, results, strict=True):
            ends = np.cumsum([len(rows[output.counted_by]) for rows in batch])
            if ends[-1] != len(result):
                raise RuntimeError(f"{output.name} has {len(result)} rows instead of {ends[-1]}")
            for tensors, rows_out in zip(split, np.split(result, ends[:-1]), strict=True):
                tensors.append(pb_utils.Tensor(output.name, rows_out[np.newaxis]))
        return [pb_utils.InferenceResponse(tensors) for tensors in split]


def concatenate(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate 1-D arrays without copying a single one, which may have the megabytes of a page."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def count_rows(rows: Rows) -> int:
    """Return the number of rows of a request's longest input."""
    return max(len(tensor) for tensor in rows.values())


def split_batch(accepted: dict[int, Rows], max_rows: int) -> Iterator[tuple[dict[int, Rows], int]]:
    """Split a batch into parts of at most `max_rows` rows and yield each with its row count.

    A request above `max_rows` becomes a separate part.
    """
    part: dict[int, Rows] = {}
    size = 0
    for index, rows in accepted.items():
        count = count_rows(rows)
        if part and size + count > max_rows:
            yield part, size
            part, size = {}, 0
        part[index] = rows
        size += count
    if part:
        yield part, size


def scattered_outputs(config: dict[str, Any]) -> list[Output]:
    """Return every output with the input by whose shape `batch_output` scatters it.

    Raises:
        ValueError: An output has no `BATCH_SCATTER_WITH_INPUT_SHAPE` entry, the only kind supported here.
    """
    sources = {
        target: entry["source_input"][0]
        for entry in config.get("batch_output", [])
        for target in entry["target_name"]
        if entry["kind"] == "BATCH_SCATTER_WITH_INPUT_SHAPE"
    }
    missing = [declared["name"] for declared in config["output"] if declared["name"] not in sources]
    if missing:
        raise ValueError(f"outputs without batch_output BATCH_SCATTER_WITH_INPUT_SHAPE: {', '.join(missing)}")
    return [Output(declared["name"], sources[declared["name"]]) for declared in config["output"]]


def check_graph(graph: Graph, config: dict[str, Any]) -> None:
    """Check the configured tensors against those of the graph.

    Raises:
        ValueError: Names differ, or an input is not 1-D with a dynamic length, as ragged batching requires.
    """
    names = {declared["name"] for declared in config["input"]}
    if names != set(graph.inputs):
        raise ValueError(f"config.pbtxt names the inputs {sorted(names)}, the graph {sorted(graph.inputs)}")
    for tensor in graph.inputs.values():
        if len(tensor.shape) != 1 or isinstance(tensor.shape[0], int):
            raise ValueError(f"input {tensor.name} must be 1-D and dynamic, not {tensor.shape}")
    missing = {declared["name"] for declared in config["output"]} - set(graph.output_names)
    if missing:
        raise ValueError(f"the graph lacks the outputs {sorted(missing)}")


def refuse(message: str, code: Any) -> Any:
    """Return an error response."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def send(senders: list[Any], responses: Mapping[int, Any]) -> None:
    """Send the final responses of requests, given by their index in the batch."""
    for index, response in responses.items():
        try:
            senders[index].send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # the other responses can still be sent
            pb_utils.Logger.log_error(f"a response could not be sent: {error}")
