"""An ONNX graph, loaded as the model configuration asks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from lanes import lower_priority
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # has to be set before the import: ONNX Runtime sends telemetry from then on

import onnxruntime as ort

MAX_DUPLICATED_WEIGHTS_BYTES = 1 << 30
"""Weights up to this size are loaded twice: once for runs on all cores, once for runs in parallel."""

MIN_LANES, MAX_LANES = 2, 8
THREADS_PER_LANE = 4
"""A model up to that size has a lane for so many threads; a larger one has two, for each run takes memory.

With two, no core idles while one run is in a single-threaded operator. With sixteen cores, four lanes of four threads
are faster than two of eight: about a sixth of a run of 512 rows has no use for a second thread.
"""

SPIN_DURATION_US = "20"
"""How long an idle thread spins before it sleeps, in microseconds; ONNX Runtime's default is a thousand."""

LARGE_INPUT_BYTES = 8192
"""A run with larger inputs, such as a thousand token ids or a tile, returns the memory of its activations afterwards.

ONNX Runtime would keep it. For such runs, asking the system for it again takes no noticeable time.
"""

CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)

CPU_INFO = Path("/proc/cpuinfo")

Provider = tuple[str, dict[str, int]]
"""Name and options of an execution provider."""


class Graph:
    """A graph that runs alone on all cores, or in parallel with other runs on a share of them.

    Several runs at a time, each on its own core, have a higher throughput than one run on all cores: no thread waits
    for another after every matrix product.

    Args:
        path: Path of `model.onnx`.
        config: Triton's model configuration.
        args: Triton's arguments to `initialize`.
        lanes: Maximum number of runs at a time.

    Raises:
        ValueError: The configuration asks for a GPU that ONNX Runtime cannot use.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], args: Mapping[str, str], lanes: int) -> None:
        providers = execution_providers(config, args)
        check_providers(providers, ort.get_available_providers(), "this build of ONNX Runtime lacks")
        if args["model_instance_kind"] == "GPU":
            ort.preload_dlls()  # CUDA and cuDNN from the nvidia-* packages: the linker does not look there
        threads = count_threads(config)
        # Its threads have low priority: they serve large runs, and small ones only when nothing else runs.
        with ThreadPoolExecutor(1, initializer=lower_priority) as low:
            options = session_options(config, threads)
            self._alone = low.submit(ort.InferenceSession, str(path), options, providers=providers).result()
        check_providers(providers, self._alone.get_providers(), "ONNX Runtime could not initialise")
        self._parallel = self._alone
        share = max(1, threads - lanes + 1)  # the calling threads work too
        if share < threads and weights_bytes(path) <= MAX_DUPLICATED_WEIGHTS_BYTES:
            self._parallel = ort.InferenceSession(str(path), session_options(config, share), providers=providers)
        self._release_memory = None
        if args["model_instance_kind"] != "GPU":
            self._release_memory = ort.RunOptions()
            self._release_memory.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.inputs: Mapping[str, Any] = {tensor.name: tensor for tensor in self._alone.get_inputs()}
        self.output_names: Sequence[str] = [tensor.name for tensor in self._alone.get_outputs()]

    def run(self, output_names: Sequence[str], feeds: Mapping[str, NDArray[Any]], is_alone: bool) -> list[NDArray[Any]]:
        """Run the graph.

        Args:
            output_names: Outputs to compute.
            feeds: Input name to tensor.
            is_alone: Whether no other run is in progress.
        """
        session = self._alone if is_alone else self._parallel
        is_large = sum(tensor.nbytes for tensor in feeds.values()) > LARGE_INPUT_BYTES
        results: list[NDArray[Any]] = session.run(output_names, feeds, self._release_memory if is_large else None)
        return results


def session_options(config: Mapping[str, Any], threads: int) -> ort.SessionOptions:
    """Return session options with the thread counts given by the parameters, named as in the native backend."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = int(parameter(config, "inter_op_thread_count", "1"))
    # Threads that spin for long take cores from the other steps, the gateway and the other lanes.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_DURATION_US)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without VNNI, int8 products are otherwise added up in 16 bits, which overflow without a word. With it they are
    # exact, and ONNX Runtime would still take its slower kernels.
    if not has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Row counts differ from run to run: a memory plan kept for each of them would only cost memory.
    options.enable_mem_pattern = False
    return options


def has_vnni() -> bool:
    """Return whether the processor adds up int8 products in 32 bits by itself (AVX-VNNI, AVX-512 VNNI)."""
    return "vnni" in CPU_INFO.read_text()


def execution_providers(config: Mapping[str, Any], args: Mapping[str, str]) -> list[Provider]:
    """Return the execution providers for the instance kind and `execution_accelerators`, in order of preference."""
    if args["model_instance_kind"] != "GPU":
        return [(CPU_PROVIDER, {})]
    accelerators = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
    device = {"device_id": int(args["model_instance_device_id"])}
    providers = [(CUDA_PROVIDER, device), (CPU_PROVIDER, {})]
    if any(accelerator["name"] == "tensorrt" for accelerator in accelerators):
        providers.insert(0, (TENSORRT_PROVIDER, device))
    return providers


def check_providers(providers: Sequence[Provider], present: Sequence[str], problem: str) -> None:
    """Check that no provider is missing: ONNX Runtime itself would continue on the CPU.

    Args:
        providers: Configured providers.
        present: Names of the providers that ONNX Runtime has.
        problem: What is wrong with a missing provider, for the error message.

    Raises:
        ValueError: A provider is missing.
    """
    missing = [name for name, _ in providers if name not in present]
    if missing:
        raise ValueError(
            f"config.pbtxt asks for a GPU, but {problem} {', '.join(missing)}: "
            "set up onnxruntime-gpu as deploy/README.md says, or export the model with --target cpu"
        )


def count_lanes(path: Path, config: Mapping[str, Any]) -> int:
    """Return how many runs of a graph on the CPU have the highest throughput when they run at a time."""
    if weights_bytes(path) > MAX_DUPLICATED_WEIGHTS_BYTES:
        return MIN_LANES
    return min(max(MIN_LANES, count_threads(config) // THREADS_PER_LANE), MAX_LANES)


def count_threads(config: Mapping[str, Any]) -> int:
    """Return the threads that the configuration asks for, by default one for each core."""
    return int(parameter(config, "intra_op_thread_count", "0")) or count_cores()


def count_cores() -> int:
    """Count the physical cores that this process may use: hyper-threads do not speed up matrix products."""
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))


def weights_bytes(path: Path) -> int:
    """Return the size of the graph and the weight files beside it, in bytes."""
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())


def parameter(config: Mapping[str, Any], key: str, default: str) -> str:
    """Return a string parameter of the model configuration."""
    value: str = config.get("parameters", {}).get(key, {}).get("string_value", default)
    return value
