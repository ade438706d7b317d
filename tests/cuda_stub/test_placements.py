"""Every graph for CUDA in ONNX Runtime's CUDA provider, over a CUDA that does nothing.

The provider is the real one, so these tests show which nodes have no kernel on a GPU, and how often the processor waits
for it. They do not show that a kernel computes the right thing: tests/export/graphs/ do, on a CPU.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
from transformers import BertConfig, BertModel

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.graphs.builder import IR_VERSION, GraphBuilder, save_model
from export.graphs.nemotron_vl import build_embedder, build_vision_encoder
from export.spec import Pooling, Precision
from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from tests.cuda_stub.build import COUNTERS, build, install
from tests.export.array_weights import ArrayWeights
from tests.export.tiny_bert import build_bert_embedder
from tests.export.tiny_text_models import write_gemma3, write_llama_bidirec, write_modernbert, write_qwen3
from tests.service import PROJECT

pytestmark = [pytest.mark.cuda_stub, pytest.mark.slow]

TEXT_MODELS = {
    "bidirectional": write_llama_bidirec,
    "causal": write_qwen3,
    "local": write_modernbert,
    "local, with norms of heads": write_gemma3,
}

RUN_GRAPH = Path(__file__).with_name("run_graph.py")
CACHE = PROJECT / "build" / "cuda_stub" / f"python{sys.version_info.major}.{sys.version_info.minor}"
WIDTH = 512  # of the language model
LENGTHS = np.array([5, 0, 300, 17, 530], np.int32)


class Run(NamedTuple):
    """What one run of a graph did: nodes by operator and provider, and the counters of the stub."""

    on_cpu: dict[str, int]
    on_gpu: dict[str, int]
    counters: dict[str, int]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment of a process whose ONNX Runtime has a GPU that does nothing."""
    if missing := [tool for tool in ("gcc", "nm", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"NO PLACEMENT ON A GPU IS TESTED: {', '.join(missing)} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        packages = install(CACHE)
    except subprocess.CalledProcessError:
        pytest.skip("NO PLACEMENT ON A GPU IS TESTED: pip cannot install onnxruntime-gpu")
    return os.environ | {"LD_LIBRARY_PATH": str(build(packages, CACHE)), "PYTHONPATH": str(packages)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[[ir.Model], Run]:
    """Run a graph once on a batch of texts, or of three tiles."""

    def run_model(model: ir.Model) -> Run:
        tokens = int(LENGTHS.sum())
        feeds: dict[str, np.ndarray] = {
            "input_ids": np.full(tokens, 7, np.int64),
            "sequence_lengths": LENGTHS,
            "image_embeds": np.zeros(len(LENGTHS) * WIDTH, np.float32),
            "image_rows": np.ones(len(LENGTHS), np.int32),
            "patches": np.zeros(3 * 256 * 3072, np.uint8),
        }
        np.savez(tmp_path / "feeds.npz", **{str(value.name): feeds[str(value.name)] for value in model.graph.inputs})
        path = save_model(model, tmp_path)
        command = [sys.executable, str(RUN_GRAPH), str(path), str(tmp_path / "feeds.npz")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        on_cpu, on_gpu = (result["nodes"][f"{device}ExecutionProvider"] for device in ("CPU", "CUDA"))
        return Run(on_cpu, on_gpu, dict(zip(COUNTERS, result["counters"], strict=True)))

    return run_model


@pytest.fixture(scope="session")
def flagship(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint with the layers and heads of the flagship, but narrow ones."""
    folder = tmp_path_factory.mktemp("flagship")
    widths = Widths(
        hidden_size=WIDTH, layers=16, heads=32, kv_heads=8, intermediate_size=256,
        vision_hidden_size=128, vision_layers=27, vision_heads=16,
    )  # fmt: skip
    write_checkpoint(folder, widths)
    return Checkpoint(folder)


def check(run: Run, copies_to_host: int) -> None:
    """Check that the processor has little to do, and waits for the GPU only for these copies and for the output."""
    assert sum(run.on_cpu.values()) <= 4, run.on_cpu
    assert run.on_gpu.get("MemcpyToHost", 0) == copies_to_host
    assert run.counters["copies_to_host"] == copies_to_host + 1, "one of them is the output"
    assert run.counters["synchronisations"] <= copies_to_host + 2
    assert not {"Loop", "If", "NonZero"} & run.on_gpu.keys()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_embedder_waits_once_for_the_gpu(run, flagship: Checkpoint, precision: Precision) -> None:
    done = run(build_embedder(flagship.config, flagship.weights, precision, "cuda"))
    check(done, copies_to_host=1)
    assert done.on_gpu["PackedMultiHeadAttention"] == 16
    assert done.counters["launches"] < 30 * 16


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_vision_encoder_never_waits_for_the_gpu(run, flagship: Checkpoint, precision: Precision) -> None:
    done = run(build_vision_encoder(flagship.config, flagship.weights, precision, "cuda"))
    check(done, copies_to_host=0)
    assert done.on_gpu["PackedMultiHeadAttention"] == 27
    assert done.counters["launches"] < 30 * 27


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_bert_waits_once_for_the_gpu(run, pooling: Pooling, precision: Precision) -> None:
    config = BertConfig(vocab_size=99, hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=80)
    state = BertModel(config, add_pooling_layer=False).state_dict()
    weights = ArrayWeights({name: tensor.numpy() for name, tensor in state.items()})
    model = build_bert_embedder(config.to_dict(), weights, pooling, precision=precision, target="cuda")
    check(run(model), copies_to_host=1)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_text_embedders_wait_once_for_the_gpu(run, tmp_path: Path, kind: str, precision: Precision) -> None:
    done = run(plan_export(Checkpoint(TEXT_MODELS[kind](tmp_path / kind)), precision, "cuda").graphs["embedder"]())
    check(done, copies_to_host=1)
    assert done.on_gpu["PackedMultiHeadAttention"] == 3


def test_what_a_gpu_has_no_kernel_for_is_counted(run) -> None:
    """The measure can fail: `Unique` has kernels for CPUs only, so its input and its result are copied."""
    op = GraphBuilder()
    input_ids = op.input("input_ids", ir.DataType.INT64, ["tokens"])
    done = run(ir.Model(op.build("graph", [op.Neg(op.Unique(op.Neg(input_ids)))]), ir_version=IR_VERSION))
    assert done.on_cpu == {"Unique": 1}
    assert (done.on_gpu["MemcpyToHost"], done.counters["copies_to_host"]) == (1, 2)
    assert done.counters["launches"] >= 1
