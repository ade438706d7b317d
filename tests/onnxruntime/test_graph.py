"""Loading and running a graph, on the execution providers that its configuration asks for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import graph
import numpy as np
import onnxruntime as ort
import psutil
import pytest
from graph import CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER, Graph, execution_providers, has_vnni
from onnx import TensorProto, helper

from tests.onnxruntime.onnx_models import initialize_args, model_config, write_model
from tests.service import PROJECT


def accelerate(*names: str) -> dict[str, Any]:
    accelerators = [{"name": name} for name in names]
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": accelerators}}}


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("CPU", {}, [CPU_PROVIDER]),
        ("CPU", accelerate("cuda"), [CPU_PROVIDER]),
        ("GPU", {}, [CUDA_PROVIDER, CPU_PROVIDER]),
        ("GPU", accelerate("cuda"), [CUDA_PROVIDER, CPU_PROVIDER]),
        ("GPU", accelerate("tensorrt"), [TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER]),
    ],
)
def test_providers_follow_instance_kind_and_accelerators(kind: str, config: dict[str, Any], names: list[str]) -> None:
    args = {"model_instance_kind": kind, "model_instance_device_id": "3"}
    providers = execution_providers(config, args)
    assert [name for name, _ in providers] == names
    assert all(options == ({} if name == CPU_PROVIDER else {"device_id": 3}) for name, options in providers)


def test_a_gpu_instance_without_cuda_in_this_build_is_an_error(tmp_path: Path) -> None:
    if CUDA_PROVIDER in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    path = write_model(tmp_path)
    args = initialize_args(tmp_path, model_config(), "GPU")
    with pytest.raises(ValueError, match=r"asks for a GPU, but this build .* lacks CUDAExecutionProvider: .*README"):
        Graph(path, model_config(), args, lanes=1)


def test_a_gpu_instance_whose_cuda_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu behaves without a driver or libraries: it names the provider and continues on the CPU."""
    path = write_model(tmp_path)
    args = initialize_args(tmp_path, model_config(), "GPU")
    session = ort.InferenceSession

    def start_on_cpu(*arguments: Any, providers: Any) -> ort.InferenceSession:
        return session(*arguments, providers=[CPU_PROVIDER])

    preloads: list[None] = []
    monkeypatch.setattr(ort, "preload_dlls", lambda: preloads.append(None))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(ort, "InferenceSession", start_on_cpu)
    with pytest.raises(ValueError, match="could not initialise CUDAExecutionProvider"):
        Graph(path, model_config(), args, lanes=1)
    assert preloads == [None]


@pytest.mark.parametrize("is_alone", [True, False])
def test_runs_alone_and_in_parallel_have_the_same_result(tmp_path: Path, is_alone: bool) -> None:
    config = model_config() | {"parameters": {"intra_op_thread_count": {"string_value": "2"}}}
    graph = Graph(write_model(tmp_path), config, initialize_args(tmp_path, config), lanes=2)
    feeds = {"input_ids": np.arange(5), "sequence_lengths": np.array([2, 3], np.int32)}
    [embeddings] = graph.run(["embeddings"], feeds, is_alone)
    assert embeddings.tolist() == [[2.0], [3.0]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx2 fma", False), ("avx2 avx_vnni", True), ("avx512f avx512_vnni amx_int8", True)],
)
def test_processors_with_exact_int8_products_are_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(graph, "CPU_INFO", tmp_path / "cpuinfo")
    assert has_vnni() == expected


EMULATE_HASWELL = ("qemu-x86_64", "-cpu", "Haswell")  # AVX2 without VNNI

RUN_INT8 = """
import numpy as np
import sys
from pathlib import Path
import graph
from graph import Graph
from tests.onnxruntime.onnx_models import initialize_args, model_config

path, cpu_info = map(Path, sys.argv[1:])
graph.CPU_INFO = cpu_info
loaded = Graph(path, model_config(), initialize_args(path.parent.parent, model_config()), lanes=1)
feeds = {"input_ids": np.full(64, 255), "sequence_lengths": np.array([64], np.int32)}
print(loaded.run(["embeddings"], feeds, is_alone=True)[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("emulation", [(), EMULATE_HASWELL], ids=["this processor", "Haswell"])
def test_int8_products_of_the_largest_numbers_do_not_overflow(tmp_path: Path, emulation: tuple[str, ...]) -> None:
    if emulation and shutil.which(emulation[0]) is None:
        pytest.skip("no qemu-x86_64 (Debian's qemu-user): int8 is NOT tested on processors without VNNI")
    matrix = helper.make_tensor("matrix", TensorProto.INT8, [64, 16], [127] * 64 * 16)
    nodes = [
        helper.make_node("Constant", [], ["matrix"], value=matrix),
        helper.make_node("Constant", [], ["one_row"], value_ints=[1, 64]),
        helper.make_node("Cast", ["input_ids"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "one_row"], ["row"]),
        helper.make_node("MatMulInteger", ["row", "matrix"], ["products"]),
        helper.make_node("Cast", ["products"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["embeddings"], keepdims=1),
    ]
    path = write_model(tmp_path, nodes)
    cpu_info = Path("/proc/cpuinfo")
    if emulation:  # qemu shows the flags of the real processor there
        cpu_info = tmp_path / "cpuinfo"
        cpu_info.write_text("flags : avx avx2 fma")
    printed = subprocess.check_output(
        [*emulation, sys.executable, "-c", RUN_INT8, str(path), str(cpu_info)],
        env=os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'backends' / 'onnxruntime'}"},
        text=True,
    )
    assert printed == f"[[{64 * 255 * 127}.]]\n"


def test_a_large_run_returns_the_memory_of_its_activations(tmp_path: Path) -> None:
    """The graph repeats the ids a hundred times, which takes 80 MB, and counts them."""
    nodes = [
        helper.make_node("Constant", [], ["repeats"], value_ints=[100]),
        helper.make_node("Tile", ["input_ids", "repeats"], ["repeated"]),
        helper.make_node("Cast", ["repeated"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["values"], ["sum"], keepdims=1),
        helper.make_node("Unsqueeze", ["sum", "axes"], ["embeddings"]),
    ]
    graph = Graph(write_model(tmp_path, nodes), model_config(), initialize_args(tmp_path, model_config()), lanes=1)
    process = psutil.Process()

    def run(tokens: int) -> None:
        feeds: dict[str, Any] = {
            "input_ids": np.ones(tokens, np.int64),
            "sequence_lengths": np.array([tokens], np.int32),
        }
        [embeddings] = graph.run(["embeddings"], feeds, is_alone=True)
        assert embeddings.tolist() == [[100 * tokens]]

    run(10)  # ONNX Runtime keeps what its first run takes: in a service, the warm-up
    before = process.memory_info().rss
    run(100_000)
    assert process.memory_info().rss - before < 40e6


def test_telemetry_is_off_before_onnxruntime_is_imported(tmp_path: Path) -> None:
    """From version 1.31 on ONNX Runtime sends telemetry from its import until it is turned off."""
    fake = "import os\nprint(os.environ.get('ORT_DISABLE_TELEMETRY'))\nclass SessionOptions: ...\n"
    (tmp_path / "onnxruntime.py").write_text(fake)
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    path = f"{tmp_path}:{PROJECT / 'backends' / 'onnxruntime'}"
    printed = subprocess.check_output(
        [sys.executable, "-c", "import graph"], env=environment | {"PYTHONPATH": path}, text=True
    )
    assert printed == "1\n"
