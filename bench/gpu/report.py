"""The report of a run, as JSON and as Markdown; it is written again after each section."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.gpu.measure import Latency, Speed
from bench.gpu.workloads import PAGES
from export.validation import Agreement

PACKAGES = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "tensorrt", "numpy")
NOT_MEASURED = "-"


@dataclass
class Report:
    """What a run has found so far.

    Attributes:
        machine: Description of the machine.
        size: Size of the model, `full` or `tiny`.
        started: Start of the run, UTC, ISO 8601.
        peak_flops: Operations per second of one large matrix product.
        operations: Operations of a batch of each workload.
        agreements: Each engine's embeddings against those of the reference.
        speeds: Throughput.
        latencies: Latency of queries.
        notes: What is absent, failed or was skipped.
    """

    machine: Mapping[str, str]
    size: str
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    peak_flops: float | None = None
    operations: dict[str, int] = field(default_factory=dict)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON values, those derived from others included."""
        speeds = [
            asdict(speed)
            | {"tokens_per_s": speed.tokens_per_s, "items_per_s": speed.items_per_s, "flops": self.flops(speed)}
            for speed in self.speeds
        ]
        return asdict(self) | {"speeds": speeds}

    def flops(self, speed: Speed) -> float:
        """Return the operations per second that a throughput amounts to."""
        return self.operations[speed.workload] / speed.run_ms * 1e3

    def to_markdown(self) -> str:
        """Return the report as a page."""
        peak = NOT_MEASURED if self.peak_flops is None else f"{self.peak_flops / 1e12:.4g} TFLOP/s"
        parts = [
            f"# The {self.size}-size model on {self.machine['device']}",
            f"Measured {self.started}. Peak of a matrix product: {peak}.",
            "\n".join(f"- {name}: {value}" for name, value in self.machine.items()),
            "## Cosines to float32",
            format_table(
                ("engine", "lowest", "mean", "samples"),
                (
                    (name, f"{found.min_cosine:.6f}", f"{found.mean_cosine:.6f}", str(found.samples))
                    for name, found in self.agreements.items()
                ),
            ),
            *(f"## {workload}\n\n{self._format_speeds(workload)}" for workload in self._list_workloads()),
            "## A query of 12 tokens",
            format_table(
                ("engine", "load", "p50 ms", "p99 ms", "queries"),
                (
                    (each.engine, each.load, f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", str(each.queries))
                    for each in self.latencies
                ),
            ),
            "## Absent, failed or skipped",
            "\n".join(f"- {note}" for note in self.notes) or "Nothing.",
        ]
        return "\n\n".join(parts) + "\n"

    def _list_workloads(self) -> list[str]:
        return list(dict.fromkeys(speed.workload for speed in self.speeds))

    def _format_speeds(self, workload: str) -> str:
        speeds = [speed for speed in self.speeds if speed.workload == workload]
        fastest_peer = max((each.tokens_per_s for each in speeds if each.engine.startswith("PyTorch")), default=None)
        unit = "pages/s" if workload == PAGES else "tokens/s"
        header = ("engine", unit, "ms per run", "TFLOP/s", "of the peak", "to the faster PyTorch")
        rows = []
        for speed in speeds:
            rate = speed.items_per_s if workload == PAGES else speed.tokens_per_s
            flops = self.flops(speed)
            rows.append(
                (
                    speed.engine,
                    f"{rate:,.1f}",
                    f"{speed.run_ms:.2f}",
                    f"{flops / 1e12:.4g}",
                    NOT_MEASURED if self.peak_flops is None else f"{flops / self.peak_flops:.1%}",
                    NOT_MEASURED if fastest_peer is None else f"{speed.tokens_per_s / fastest_peer:.2f}x",
                )
            )
        first = speeds[0]
        return f"{first.items} items, {first.tokens} tokens a run.\n\n{format_table(header, rows)}"


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine(device: str) -> dict[str, str]:
    """Return the device, the driver, and the versions of what runs on it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {"device": device, "driver": find_driver(), "python": platform.python_version(), **versions}


def find_driver() -> str:
    """Return the version of NVIDIA's driver, `absent` without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "absent"
