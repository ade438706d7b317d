"""ONNX Runtime as a Python-based Triton backend, for Tritons that carry no native one.

It keeps the contract of the native backend: ragged inputs of all requests of a batch arrive in the graph as one 1-D
tensor each, and `batch_output` scatters the graph's rows back to the requests. So the same `config.pbtxt` and
`model.onnx` serve on either.

Where the native backend trusts its callers, this one checks: a request whose row counts do not add up, or that carries
an empty ragged tensor, is refused before it can shift its neighbours' rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from graph import Graph  # Triton puts this folder on the path
from lanes import Lanes
from priority import lower_priority

# The values of the key add up to the rows of the tensor named beside it (docs/contract.md).
ROW_COUNTS = {"sequence_lengths": "input_ids", "image_rows": "image_embeds"}

CPU_ROWS_PER_RUN, GPU_ROWS_PER_RUN = 512, 8192
"""Rows of a graph run that several requests share; larger batches run in parts.

On a processor, products of 512 rows keep it busy already, and their operands stay in its caches: MiniLM does 908 texts
a second in runs of 480 rows and 816 in runs of 4050. Activations grow with the rows: 8192 tokens of the flagship take
over a gigabyte.
"""

CPU_LANES = 2
"""Runs at a time, so that no core waits while another run does what only one thread can do."""

FEW_ROWS = 64
"""Rows up to which a batch that comes alone is answered on the spot: to hand it to a lane takes longer."""

Rows = dict[str, np.ndarray]
"""Input name to that request's rows, shaped `(rows, ...)`: the formal leading 1 of Triton's shapes is gone."""


class RequestError(Exception):
    """A request that breaks the contract; its message goes to the caller."""


@dataclass(frozen=True)
class Output:
    """An output tensor and the input whose row count says how many of its rows are a request's."""

    name: str
    counted_by: str


class TritonPythonModel:
    """One instance of one ONNX model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Leave the configuration as written: it is complete."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<version>/model.onnx` and hold the configuration against its graph."""
        config = json.loads(args["model_config"])
        if config.get("optimization", {}).get("priority") == "PRIORITY_MIN":
            lower_priority()
        version_dir = Path(args["model_repository"]) / args["model_version"]
        ort.disable_telemetry_events()
        path = version_dir / (config.get("default_model_filename") or "model.onnx")
        self.is_gpu = args["model_instance_kind"] == "GPU"
        self.rows_per_run = GPU_ROWS_PER_RUN if self.is_gpu else CPU_ROWS_PER_RUN
        lanes = 1 if self.is_gpu else CPU_LANES
        self.graph = Graph(path, config, args, lanes)
        self.inputs = [declared["name"] for declared in config["input"]]
        self.outputs = scattered_outputs(config)
        check_graph(self.graph, config)
        self.lanes = Lanes(lanes)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer a batch: one graph run for all requests that keep the contract, a refusal for each other.

        Returns:
            The answers, of a small batch that comes alone. Any other goes to lanes, whence answers are sent as they
            come, and this returns as soon as there is room for the next batch, for which requests gather meanwhile. A
            request too large to share a run lets others pass, on a processor.
        """
        accepted: dict[int, Rows] = {}
        responses: dict[int, Any] = {}
        for index, request in enumerate(requests):
            try:
                accepted[index] = self.read_rows(request)
            except RequestError as error:
                responses[index] = refuse(str(error), pb_utils.TritonError.INVALID_ARG)
        if sum(map(count_rows, accepted.values())) <= FEW_ROWS and self.lanes.are_all_free:
            responses.update(self.answer(accepted, is_alone=True))
            return [responses[index] for index in range(len(requests))]
        senders = [request.get_response_sender() for request in requests]
        send(senders, responses)
        for part, count in cut_batch(accepted, self.rows_per_run):
            is_large = count > self.rows_per_run and not self.is_gpu
            self.lanes.start(partial(self.answer_from_lane, senders, part), is_large=is_large)
        self.lanes.wait_for_free()
        return None

    def finalize(self) -> None:
        """Free the sessions' memory before the process ends."""
        self.lanes.close()
        del self.graph

    def read_rows(self, request: Any) -> Rows:
        """Return the request's inputs as rows.

        Raises:
            RequestError: A tensor has no rows, or its rows are not as many as the counts beside it say.
        """
        rows: Rows = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]
            if not len(tensor):
                raise RequestError(f"{name} has no rows: ragged tensors must not be empty")
            rows[name] = tensor.copy()  # it lives in memory that goes with the request
        for counts, counted in ROW_COUNTS.items():
            if counts not in rows:
                continue
            if (rows[counts] < 0).any() or rows[counts].sum(dtype=np.int64) != len(rows[counted]):
                raise RequestError(f"{counts} must add up to the {len(rows[counted])} rows of {counted}")
        return rows

    def answer_from_lane(self, senders: list[Any], accepted: dict[int, Rows], is_alone: bool) -> None:
        """Answer some of a batch's requests through their senders."""
        send(senders, self.answer(accepted, is_alone))

    def answer(self, accepted: dict[int, Rows], is_alone: bool) -> dict[int, Any]:
        """Run the graph once for all; if that fails, once for each, so that only the culprit fails."""
        if not accepted:
            return {}
        try:
            return dict(zip(accepted, self.run(list(accepted.values()), is_alone), strict=True))
        except Exception as error:
            if len(accepted) == 1:
                pb_utils.Logger.log_error(f"inference failed: {error}")
                index = next(iter(accepted))
                return {index: refuse("the model cannot process this request", pb_utils.TritonError.INVALID_ARG)}
        return {index: self.answer({index: rows}, is_alone)[index] for index, rows in accepted.items()}

    def run(self, batch: list[Rows], is_alone: bool) -> list[Any]:
        """Concatenate the requests' rows, run the graph, and cut its rows into one response for each request."""
        feeds = {name: join([rows[name].reshape(-1) for rows in batch]) for name in self.inputs}
        results = self.graph.run([output.name for output in self.outputs], feeds, is_alone)
        cut: list[list[Any]] = [[] for _ in batch]
        for output, result in zip(self.outputs, results, strict=True):
            ends = np.cumsum([len(rows[output.counted_by]) for rows in batch])
            if ends[-1] != len(result):
                raise RuntimeError(f"{output.name} has {len(result)} rows where {ends[-1]} were due")
            for tensors, rows_out in zip(cut, np.split(result, ends[:-1]), strict=True):
                tensors.append(pb_utils.Tensor(output.name, rows_out[np.newaxis]))
        return [pb_utils.InferenceResponse(tensors) for tensors in cut]


def join(arrays: list[np.ndarray]) -> np.ndarray:
    """Put 1-D arrays one behind the other; a single one, which may be a page's megabytes, is not copied again."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def count_rows(rows: Rows) -> int:
    """Count a request's rows, of its longest input."""
    return max(len(tensor) for tensor in rows.values())


def cut_batch(accepted: dict[int, Rows], max_rows: int) -> Iterator[tuple[dict[int, Rows], int]]:
    """Cut a batch into parts, with their rows: at most `max_rows`, but for a request above that, which goes alone."""
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
    """Pair every output with the input that `batch_output` scatters it by.

    Raises:
        ValueError: An output has no `BATCH_SCATTER_WITH_INPUT_SHAPE` entry, the only kind served here.
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
    """Hold the configured tensors against the graph's.

    Raises:
        ValueError: Names differ, or an input is not 1-D with a dynamic length, as ragged batching needs.
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
    """Make an error response."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def send(senders: list[Any], responses: Mapping[int, Any]) -> None:
    """Answer requests of a batch by their index, for good."""
    for index, response in responses.items():
        try:
            senders[index].send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # the other answers are good all the same
            pb_utils.Logger.log_error(f"an answer was lost: {error}")
