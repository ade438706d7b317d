"""ONNX Runtime as a Python-based Triton backend, for Tritons that carry no native one.

It keeps the contract of the native backend: ragged inputs of all requests of a batch arrive in the graph as one 1-D
tensor each, and `batch_output` scatters the graph's rows back to the requests. So the same `config.pbtxt` and
`model.onnx` serve on either.

Where the native backend trusts its callers, this one checks: a request whose row counts do not add up, or that carries
an empty ragged tensor, is refused before it can shift its neighbours' rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

# The values of the key add up to the rows of the tensor named beside it (docs/contract.md).
ROW_COUNTS = {"sequence_lengths": "input_ids", "image_rows": "image_embeds"}

MAX_ROWS_PER_RUN = 8192
"""Rows of a graph run that share one pass; larger batches run in parts.

Products of this size keep the processor busy already, and activations grow with the rows: 8192 tokens of the flagship
take over a gigabyte.
"""

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
        version_dir = Path(args["model_repository"]) / args["model_version"]
        ort.disable_telemetry_events()
        path = version_dir / (config.get("default_model_filename") or "model.onnx")
        self.session = ort.InferenceSession(
            str(path), session_options(config), providers=execution_providers(config, args)
        )
        self.inputs = [declared["name"] for declared in config["input"]]
        self.outputs = scattered_outputs(config)
        check_graph(self.session, config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch: one graph run for all requests that keep the contract, one refusal for each that does not."""
        responses: dict[int, Any] = {}
        accepted: dict[int, Rows] = {}
        for index, request in enumerate(requests):
            try:
                accepted[index] = self.read_rows(request)
            except RequestError as error:
                responses[index] = refuse(str(error), pb_utils.TritonError.INVALID_ARG)
        for part in cut_batch(accepted):
            responses.update(self.answer(part))
        return [responses[index] for index in range(len(requests))]

    def finalize(self) -> None:
        """Free the session's memory before the process ends."""
        del self.session

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
            rows[name] = tensor
        for counts, counted in ROW_COUNTS.items():
            if counts not in rows:
                continue
            if (rows[counts] < 0).any() or rows[counts].sum(dtype=np.int64) != len(rows[counted]):
                raise RequestError(f"{counts} must add up to the {len(rows[counted])} rows of {counted}")
        return rows

    def answer(self, accepted: dict[int, Rows]) -> dict[int, Any]:
        """Run the graph once for all; if that fails, once for each, so that only the culprit fails."""
        try:
            return dict(zip(accepted, self.run(list(accepted.values())), strict=True))
        except Exception as error:
            if len(accepted) == 1:
                pb_utils.Logger.log_error(f"inference failed: {error}")
                index = next(iter(accepted))
                return {index: refuse("the model cannot process this request", pb_utils.TritonError.INVALID_ARG)}
        return {index: self.answer({index: rows})[index] for index, rows in accepted.items()}

    def run(self, batch: list[Rows]) -> list[Any]:
        """Concatenate the requests' rows, run the graph, and cut its rows into one response for each request."""
        feeds = {name: np.concatenate([rows[name].reshape(-1) for rows in batch]) for name in self.inputs}
        results = self.session.run([output.name for output in self.outputs], feeds)
        cut: list[list[Any]] = [[] for _ in batch]
        for output, result in zip(self.outputs, results, strict=True):
            ends = np.cumsum([len(rows[output.counted_by]) for rows in batch])
            if ends[-1] != len(result):
                raise RuntimeError(f"{output.name} has {len(result)} rows where {ends[-1]} were due")
            for tensors, rows_out in zip(cut, np.split(result, ends[:-1]), strict=True):
                tensors.append(pb_utils.Tensor(output.name, rows_out[np.newaxis]))
        return [pb_utils.InferenceResponse(tensors) for tensors in cut]


def cut_batch(accepted: dict[int, Rows]) -> Iterator[dict[int, Rows]]:
    """Cut a batch into parts of at most `MAX_ROWS_PER_RUN` rows; a request above that goes alone."""
    part: dict[int, Rows] = {}
    size = 0
    for index, rows in accepted.items():
        count = max(len(tensor) for tensor in rows.values())
        if part and size + count > MAX_ROWS_PER_RUN:
            yield part
            part, size = {}, 0
        part[index] = rows
        size += count
    if part:
        yield part


def session_options(config: dict[str, Any]) -> ort.SessionOptions:
    """Read ONNX Runtime's thread settings from the parameters that the native backend knows too."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameter(config, "intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(parameter(config, "inter_op_thread_count", "1"))
    # Row counts differ from run to run: plans kept for each would only hold memory.
    options.enable_mem_pattern = False
    return options


def execution_providers(config: dict[str, Any], args: dict[str, str]) -> list[Any]:
    """Name the execution providers, most wanted first, as instance kind and `execution_accelerators` ask."""
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    accelerators = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    device = {"device_id": int(args["model_instance_device_id"])}
    wanted: list[Any] = [("CUDAExecutionProvider", device)]
    if any(accelerator["name"] == "tensorrt" for accelerator in accelerators):
        wanted.insert(0, ("TensorrtExecutionProvider", device))
    return [*wanted, "CPUExecutionProvider"]


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


def check_graph(session: ort.InferenceSession, config: dict[str, Any]) -> None:
    """Hold the configured tensors against the graph's.

    Raises:
        ValueError: Names differ, or an input is not 1-D with a dynamic length, as ragged batching needs.
    """
    graph_inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    names = {declared["name"] for declared in config["input"]}
    if names != set(graph_inputs):
        raise ValueError(f"config.pbtxt names the inputs {sorted(names)}, the graph {sorted(graph_inputs)}")
    for tensor in graph_inputs.values():
        if len(tensor.shape) != 1 or isinstance(tensor.shape[0], int):
            raise ValueError(f"input {tensor.name} must be 1-D and dynamic, not {tensor.shape}")
    missing = {declared["name"] for declared in config["output"]} - {tensor.name for tensor in session.get_outputs()}
    if missing:
        raise ValueError(f"the graph lacks the outputs {sorted(missing)}")


def parameter(config: dict[str, Any], key: str, default: str) -> str:
    """Return a string parameter of the model configuration."""
    value: str = config.get("parameters", {}).get(key, {}).get("string_value", default)
    return value


def refuse(message: str, code: Any) -> Any:
    """Make an error response."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
