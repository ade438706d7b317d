"""The benchmark on a GPU, tried on the CPU with a tiny model: the same code, other figures."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from bench.gpu.__main__ import GpuRun
from bench.gpu.measure import Budget, Latency, Speed, draw_arrivals
from bench.gpu.report import Report
from bench.gpu.torch_engine import LAYOUTS, Layout, TorchEngine, Towers, load_towers
from bench.gpu.workloads import PAGES, SIZES, Batch, count_operations, count_tokens, make_samples, make_workloads
from export.checkpoint import Checkpoint
from export.tiny_checkpoint.tensors import FULL_SIZE, Widths
from export.tiny_checkpoint.write import write_checkpoint
from export.validation.nemotron_vl import embed_with_transformers
from tests.service import PROJECT

NESTED_TENSORS_ARE_NEW = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for one another are slow on a busy machine
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=580)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_so_in_one_line() -> None:
    finished = run_command()
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: PyTorch finds no NVIDIA GPU here")
    assert finished.stderr.count("\n") == 1
    assert not finished.stdout


@pytest.mark.slow
def test_every_step_runs_on_the_cpu(tmp_path: Path) -> None:
    options = ("--device", "cpu", "--size", "tiny", "--eager", "--build-dir", str(tmp_path), "--output", str(tmp_path))
    finished = run_command(*options)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "report.md").read_text() == finished.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    engines = set(report["agreements"])
    assert [name.split()[0] for name in sorted(engines)] == ["ONNX", "PyTorch", "PyTorch"]
    assert all(found["min_cosine"] > 0.999 for found in report["agreements"].values())
    workloads = make_workloads(SIZES["tiny"], image_token_id=0)
    assert {(each["engine"], each["workload"]) for each in report["speeds"]} == {
        (engine, workload) for engine in engines for workload in workloads
    }
    assert {(each["engine"], each["load"]) for each in report["latencies"]} == {
        (engine, load) for engine in engines for load in ("alone", "half load")
    }
    assert all(note.startswith("TensorRT: ") for note in report["notes"])
    assert report["peak_flops"] > 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, Widths())
    return folder


@pytest.fixture
def towers(checkpoint: Path) -> Towers:
    return load_towers(checkpoint, "cpu")


@NESTED_TENSORS_ARE_NEW
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_compute_what_the_validation_of_exports_computes(
    towers: Towers, checkpoint: Path, layout: Layout
) -> None:
    weights = Checkpoint(checkpoint).weights
    for batch in make_samples(towers.config["img_context_token_id"]).values():
        embeddings = TorchEngine(layout, towers, layout).prepare(batch)()
        expected = embed_with_transformers(towers.config, weights, batch)
        np.testing.assert_allclose(embeddings, expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with g++, which is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_layers_compute_the_same(towers: Towers, layout: Layout) -> None:
    engine = TorchEngine(layout, towers, layout)
    texts = make_samples(towers.config["img_context_token_id"])["texts"]
    expected = engine.prepare(texts)()
    towers.compile()
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    np.testing.assert_allclose(engine.prepare(texts)(), expected, atol=2e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compiled


def test_operations_of_the_full_size_are_those_of_the_model() -> None:
    """By hand: 60.8 million weights in each of 16 layers are 1.946 GFLOP a token."""
    workloads = make_workloads(SIZES["full"], image_token_id=128258)
    assert count_operations(workloads["512 tokens"], FULL_SIZE) == pytest.approx(15.94e12 + 1.1e12 / 2, rel=5e-3)
    assert count_operations(workloads[PAGES], FULL_SIZE) / 4 == pytest.approx(6.85e12 + 3.95e12, rel=1e-2)


def test_workloads_are_the_same_in_every_run_and_fill_their_batches() -> None:
    size = SIZES["full"]
    first, again = (make_workloads(size, image_token_id=600) for _ in range(2))
    assert {name: [item.input_ids for item in batch] for name, batch in first.items()} == {
        name: [item.input_ids for item in batch] for name, batch in again.items()
    }
    assert {count_tokens(batch) for name, batch in first.items() if name != PAGES} == {size.batch_tokens}
    assert all(item.input_ids.count(600) == 7 * 256 for item in first[PAGES])


class WrongEngine:
    """Returns embeddings of its own."""

    name = "wrong"

    def prepare(self, batch: Batch) -> Callable[[], NDArray[np.float32]]:
        return lambda: np.eye(len(batch), 16, dtype=np.float32)


def make_run(folder: Path, seconds: float = 60) -> GpuRun:
    return GpuRun("cpu", SIZES["tiny"], folder, Budget(seconds), Report({"device": "cpu"}, "tiny"), folder)


def test_the_speed_of_an_engine_with_wrong_embeddings_is_not_measured(tmp_path: Path) -> None:
    run, samples = make_run(tmp_path), {"texts": make_samples(0)["texts"]}
    expected = {"texts": np.eye(8, 16, 1, dtype=np.float32)}
    assert not run.is_right(WrongEngine(), samples, expected)
    assert run.report.notes == ["wrong: its speed is not measured, for its lowest cosine to float32 is 0.0000"]
    assert run.is_right(WrongEngine(), samples, {"texts": np.eye(8, 16, dtype=np.float32)})


def test_what_fails_or_does_not_fit_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run.attempt("division", lambda: 1 / 0) is None
    assert run.attempt("sum", lambda: 1 + 1) == 2
    late = make_run(tmp_path, seconds=0)
    assert late.attempt("sum", lambda: 1 + 1) is None
    assert [*run.report.notes, *late.report.notes] == [
        "division: ZeroDivisionError: division by zero",
        "sum: TimeoutError: skipped, for the time is over",
    ]
    assert "skipped, for the time is over" in (tmp_path / "report.md").read_text()


def test_an_export_that_fails_is_noted_with_its_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run.attempt("ONNX Runtime, export", lambda: run.export(tmp_path / "absent")) is None
    [note] = run.report.notes
    assert note.startswith("ONNX Runtime, export: RuntimeError: error: ")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this build has CUDA")
def test_nothing_is_exported_for_a_device_that_this_build_lacks(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.device = "cuda"
    with pytest.raises(RuntimeError, match="absent: this build of ONNX Runtime lacks CUDAExecutionProvider"):
        run.export(tmp_path / "absent")


def test_the_report_compares_with_the_peak_and_the_faster_peer() -> None:
    report = Report({"device": "a card"}, "full", peak_flops=100e12, operations={"512 tokens": 10**12})
    report.speeds = [
        Speed(name, "512 tokens", 16, 8192, run_ms, 5)
        for name, run_ms in (("ONNX Runtime", 20.0), ("PyTorch padded", 25.0), ("PyTorch varlen", 50.0))
    ]
    report.latencies = [Latency("ONNX Runtime", "alone", 1.5, 2.25, 100)]
    page = report.to_markdown()
    assert "| ONNX Runtime | 409,600.0 | 20.00 | 50 | 50.0% | 1.25x |" in page
    assert "| PyTorch varlen | 163,840.0 | 50.00 | 20 | 20.0% | 0.50x |" in page
    assert "| ONNX Runtime | alone | 1.50 | 2.25 | 100 |" in page
    assert page.endswith("## Absent, failed or skipped\n\nNothing.\n")


def test_arrivals_come_at_the_rate_asked_for() -> None:
    times = draw_arrivals(0.01, seconds=20)
    assert times == sorted(times)
    assert 1800 < len(times) < 2200
