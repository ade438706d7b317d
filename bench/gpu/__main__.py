"""Command line of the benchmark on a GPU: `python -m bench.gpu`."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

import bench.gpu
from bench.gpu import measure
from bench.gpu.measure import Budget
from bench.gpu.onnx_engine import PROVIDERS, Device, Engine, OnnxEngine, check_provider
from bench.gpu.report import Report, describe_machine
from bench.gpu.torch_engine import LAYOUTS, TorchEngine, Towers, load_towers
from bench.gpu.workloads import (
    SIZES,
    Batch,
    Size,
    count_operations,
    make_query,
    make_request,
    make_samples,
    make_workloads,
)
from bench.settings import BUILD_DIR, PROJECT
from export.tiny_checkpoint.write import write_checkpoint

Result = TypeVar("Result")
Batches = Mapping[str, Batch]
Embeddings = Mapping[str, NDArray[np.float32]]

log = logging.getLogger("bench.gpu")

PUBLIC_ID = "tiny/gpu"
# Embeddings further from float32's are wrong, whatever rounds in between.
MIN_COSINE = 0.999
# What the export may take of the whole time; the rest is enough for the other sections on a fast card.
EXPORT_SHARE = 0.5
MAX_ERROR_CHARS = 300
# Something may begin, and be compiled for another shape, only while there is so much time.
MIN_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what this machine has, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    options = make_parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "error: PyTorch finds no NVIDIA GPU here; --device cpu --size tiny tries every step without one\n"
        )
        return 1
    device: Device = options.device
    report = Report(describe_machine(torch.cuda.get_device_name() if device == "cuda" else "cpu"), options.size)
    folder = options.build_dir / options.size
    report_folder = options.output or folder
    run = GpuRun(device, SIZES[options.size], folder, Budget(60 * options.minutes), report, report_folder)
    run.measure(options.repository, compiled=not options.eager)
    report.write(report_folder)
    sys.stdout.write(report.to_markdown())
    return int(not report.speeds)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=bench.gpu.__doc__)
    parser.add_argument("--device", choices=tuple(PROVIDERS), default="cuda", help="default: cuda")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="default: full, 1.7 billion parameters")
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit is skipped (default: 9)")
    parser.add_argument("--eager", action="store_true", help="do not compile PyTorch's layers")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help=f"measure {PUBLIC_ID} of this repository instead of a new export"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the report (default: in --build-dir)")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIR / "gpu", help="takes up about 7 GB at full size")
    return parser


class GpuRun:
    """One run, section by section; what fails or does not fit ends up in the report's notes.

    Args:
        device: Where to run the model.
        size: Size of the model and the batches.
        folder: For the checkpoint and the export.
        budget: Time for the whole run.
        report: Receives what is found.
        report_folder: Where the report is written after each section, so that a run that is killed leaves one.
    """

    def __init__(
        self, device: Device, size: Size, folder: Path, budget: Budget, report: Report, report_folder: Path
    ) -> None:
        self.device, self.size, self.folder, self.budget = device, size, folder, budget
        self.report, self.report_folder = report, report_folder

    def measure(self, repository: Path | None, *, compiled: bool) -> None:
        """Measure everything: first the cosines, then the speed of the engines that compute the right thing.

        Args:
            repository: Repository with an export of this size; exported anew if absent.
            compiled: Whether PyTorch may compile.
        """
        checkpoint = self.write_weights()
        peak = partial(measure.measure_peak, self.device, self.size.matrix_side)
        self.report.peak_flops = self.attempt("the matrix peak", peak)
        repository = repository or self.attempt("ONNX Runtime, export", partial(self.export, checkpoint))
        log.info("the reference in float32")
        towers = load_towers(checkpoint, self.device)
        samples = make_samples(towers.config["img_context_token_id"])
        reference = TorchEngine("float32", towers, "padded")
        expected = {name: measure.embed_one_by_one(reference, batch) for name, batch in samples.items()}
        engines = self.start_graphs(repository, samples, expected)
        towers.convert(torch.bfloat16)
        if self.device == "cuda":
            torch.cuda.empty_cache()  # of the float32 weights
        engines += self.start_peers(towers, samples, expected, compiled=compiled)
        self.measure_speeds(engines, make_workloads(self.size, towers.config["img_context_token_id"]))
        self.measure_latencies(engines)

    def write_weights(self) -> Path:
        """Write the checkpoint, unless an earlier run did, and return its folder."""
        checkpoint = self.folder / "checkpoint"
        if not (checkpoint / "complete").exists():
            log.info("draw the weights")
            write_checkpoint(checkpoint, self.size.widths, dtype="bfloat16")
            (checkpoint / "complete").touch()
        return checkpoint

    def export(self, checkpoint: Path) -> Path:
        """Export the checkpoint as users do, and return the repository.

        Raises:
            RuntimeError: The export fails, takes too long, or would be of no use.
        """
        check_provider(self.device)
        repository = self.folder / "model_repository"
        command = [sys.executable, "-m", "export", str(checkpoint), "--name", PUBLIC_ID, "--precision", "fp16"]
        command += ["--target", self.device, "--repository", str(repository), "--replace"]
        output = self.folder / "export.log"
        log.info("export the graphs; %s has its progress", output)
        timeout_s = EXPORT_SHARE * self.budget.remaining_s
        try:
            with output.open("w") as file:
                subprocess.run(command, check=True, cwd=PROJECT, stdout=file, stderr=file, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"it was not done after {timeout_s:.0f} s") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(output.read_text().strip().splitlines()[-1]) from error
        return repository

    def start_graphs(self, repository: Path | None, samples: Batches, expected: Embeddings) -> list[Engine]:
        """Return ONNX Runtime, if there are an export and a device for it, and if its embeddings are right."""
        state = "absent: there is no Python module tensorrt" if find_spec("tensorrt") is None else "not measured yet"
        self.report.notes.append(f"TensorRT: {state}")
        if repository is None:
            return []
        engine = self.attempt("ONNX Runtime", partial(OnnxEngine, repository, PUBLIC_ID, self.device))
        return [engine] if engine and self.is_right(engine, samples, expected) else []

    def start_peers(self, towers: Towers, samples: Batches, expected: Embeddings, *, compiled: bool) -> list[Engine]:
        """Return PyTorch in each layout whose embeddings are right; not compiled if that works in neither."""
        if compiled:
            towers.compile()
        for kind in ("compiled", "eager") if compiled else ("eager",):
            engines = [TorchEngine(f"PyTorch {layout}, bf16, {kind}", towers, layout) for layout in LAYOUTS]
            right: list[Engine] = [engine for engine in engines if self.is_right(engine, samples, expected)]
            if right:
                return right
            torch.compiler.set_stance("force_eager")
        return []

    def is_right(self, engine: Engine, samples: Batches, expected: Embeddings) -> bool:
        """Compare an engine with the reference, and return whether its speed is worth measuring."""
        compare = partial(measure.compare, engine, samples, expected)
        agreement = self.attempt(f"{engine.name}, cosines", compare)
        if agreement is None:
            return False
        self.report.agreements[engine.name] = agreement
        if agreement.min_cosine >= MIN_COSINE:
            return True
        self.report.notes.append(
            f"{engine.name}: its speed is not measured, for its lowest cosine to float32 is {agreement.min_cosine:.4f}"
        )
        return False

    def measure_speeds(self, engines: Sequence[Engine], workloads: Batches) -> None:
        """Measure the throughput of all engines, workload by workload."""
        for workload, batch in workloads.items():
            self.report.operations[workload] = count_operations(batch, self.size.widths)
            for engine in engines:
                take = partial(measure.measure_speed, engine, workload, batch, self.size.seconds)
                if speed := self.attempt(f"{engine.name}, {workload}", take):
                    self.report.speeds.append(speed)

    def measure_latencies(self, engines: Sequence[Engine]) -> None:
        """Measure how long a query takes, alone and beside passages."""
        query, request = make_query(), make_request(self.size)
        seconds = self.size.latency_seconds
        for engine in engines:
            for name, take in {
                "a query alone": partial(measure.measure_query_alone, engine, query, seconds),
                "a query at half load": partial(measure.measure_query_at_half_load, engine, query, request, seconds),
            }.items():
                if latency := self.attempt(f"{engine.name}, {name}", take):
                    self.report.latencies.append(latency)

    def attempt(self, name: str, take: Callable[[], Result]) -> Result | None:
        """Return what a function returns, or None: what fails or does not fit is noted, and the rest goes on."""
        log.info("%s", name)
        try:
            if self.budget.remaining_s < MIN_SECONDS:
                raise TimeoutError("skipped, for the time is over")
            return take()
        except Exception as error:
            message = (str(error).strip().splitlines() or [""])[0]
            self.report.notes.append(f"{name}: {type(error).__name__}: {message[:MAX_ERROR_CHARS]}")
            log.warning("%s", self.report.notes[-1])
            return None
        finally:
            self.report.write(self.report_folder)


if __name__ == "__main__":
    sys.exit(main())
