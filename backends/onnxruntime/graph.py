"""An ONNX graph, loaded as a model's configuration asks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
from priority import lower_priority

SMALL_WEIGHTS_BYTES = 1 << 30
"""Weights up to this size are held twice, for runs that have all cores and for runs beside others."""

SPIN_US = "20"
"""How long a thread with nothing to do looks for more before it sleeps, in microseconds; the default is a thousand."""


class Graph:
    """Runs alone on all cores, or beside others on a share of them.

    Several runs at a time, each on its own core, get more done than one run on all cores: no thread waits for another
    after every matrix product.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], args: Mapping[str, str], lanes: int) -> None:
        """Load the weights.

        Args:
            path: The `model.onnx`.
            config: Triton's model configuration.
            args: Triton's arguments to `initialize`.
            lanes: Most runs at a time.
        """
        providers = execution_providers(config, args)
        threads = int(parameter(config, "intra_op_thread_count", "0")) or count_cores()
        # Its threads have low priority: they work on large runs, and on small ones only when nothing else does.
        with ThreadPoolExecutor(1, initializer=lower_priority) as low:
            options = session_options(config, threads)
            self._alone = low.submit(ort.InferenceSession, str(path), options, providers=providers).result()
        self._beside = self._alone
        share = max(1, threads - lanes + 1)  # the calling threads work too
        if share < threads and weights_bytes(path) <= SMALL_WEIGHTS_BYTES:
            self._beside = ort.InferenceSession(str(path), session_options(config, share), providers=providers)
        self.inputs: Mapping[str, Any] = {tensor.name: tensor for tensor in self._alone.get_inputs()}
        self.output_names: Sequence[str] = [tensor.name for tensor in self._alone.get_outputs()]

    def run(self, output_names: Sequence[str], feeds: Mapping[str, np.ndarray], is_alone: bool) -> list[np.ndarray]:
        """Compute outputs.

        Args:
            output_names: Which.
            feeds: Input name to tensor.
            is_alone: Whether no other run is under way.
        """
        session = self._alone if is_alone else self._beside
        results: list[np.ndarray] = session.run(output_names, feeds)
        return results


def session_options(config: Mapping[str, Any], threads: int) -> ort.SessionOptions:
    """Set threads as the parameters say that the native backend knows too."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = int(parameter(config, "inter_op_thread_count", "1"))
    # Threads that spin for long take the cores from the other steps, the gateway and other lanes.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Row counts differ from run to run: plans kept for each would only hold memory.
    options.enable_mem_pattern = False
    return options


def execution_providers(config: Mapping[str, Any], args: Mapping[str, str]) -> list[Any]:
    """Name the execution providers, most wanted first, as instance kind and `execution_accelerators` ask."""
    if args["model_instance_kind"] != "GPU":
        return ["CPUExecutionProvider"]
    accelerators = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    device = {"device_id": int(args["model_instance_device_id"])}
    wanted: list[Any] = [("CUDAExecutionProvider", device)]
    if any(accelerator["name"] == "tensorrt" for accelerator in accelerators):
        wanted.insert(0, ("TensorrtExecutionProvider", device))
    return [*wanted, "CPUExecutionProvider"]


def count_cores() -> int:
    """Count the cores that this process may use; a second thread of a core adds nothing to matrix products."""
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))


def weights_bytes(path: Path) -> int:
    """Sum up the graph and the files beside it that hold its weights."""
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())


def parameter(config: Mapping[str, Any], key: str, default: str) -> str:
    """Return a string parameter of the model configuration."""
    value: str = config.get("parameters", {}).get(key, {}).get("string_value", default)
    return value
