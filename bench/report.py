"""Report of one run: as JSON, as tables on the terminal, and as the page `docs/benchmarks.md`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.goals import GOALS
from bench.results import Measurement, Results, p50, p99, throughput
from bench.settings import PROJECT, BenchSettings

PAGE = PROJECT / "docs" / "benchmarks.md"

# Description of the method; the settings of the run are filled in.
METHOD = Path(__file__).with_name("method.md")

# Packages whose versions affect the figures.
PACKAGES = (
    "nvidia-pytriton",
    "onnxruntime",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "uvloop",
    "orjson",
    "grpcio",
    "tritonclient",
    "numpy",
    "pillow",
)

SECTION_TITLES = {
    "throughput": "12-word texts",
    "peers": "Other servers",
    "padding": "Packed against padded, bare loop",
    "int8": "int8 against fp32, bare loop",
    "lengths": "Cost by length",
    "responses": "Response formats",
    "pages": "Page images, alone and mixed with texts",
    "interference": "Short texts while pages stream",
    "preprocessing": "A page from file to patches, on one core",
    "decoders": "The preprocessing step by its number of decoders",
    "gateway_alone": "The gateway in front of an engine that responds immediately",
    "triton": "Triton without the gateway",
    "growth": "One long run",
}
SECTION_HEADER = (
    *("workload", "items", "clients", "contender"),
    *("items/s", "p50 ms", "p99 ms", "failed", "CPU µs per item"),
)
GOALS_HEADER = ("measure", "at least", "aim", "measured", "verdict")
# Processes that use less are left out of the tables.
MIN_SHOWN_CPU_US = 1.0


@dataclass(frozen=True)
class Report:
    """One run.

    Attributes:
        started: Start of the run, UTC, ISO 8601.
        machine: Description of the machine.
        versions: Versions of Python and packages.
        settings: Settings of the run.
        results: All measurements.
    """

    started: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Results

    @classmethod
    def start(cls, settings: BenchSettings) -> Report:
        """Return the report of a run that starts now, still without results."""
        shown = {name: value for name, value in asdict(settings).items() if name != "build_dir"}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(now, describe_machine(), describe_versions(), shown, Results())

    def write(self, path: Path) -> None:
        """Write the report as JSON, including the figures of the goals."""
        goals = [
            {"goal": goal.measure, "at_least": goal.at_least, "aim": goal.aim, "value": goal.read(self.results)}
            for goal in GOALS
        ]
        values = asdict(self) | {"results": self.results.to_json(), "goals": goals}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        del values["goals"]
        return cls(**values | {"results": Results.from_json(values["results"])})


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory, operating system, load and commit."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": find_processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "commit": find_commit(),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that affect the figures."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def find_processor() -> str:
    """Return the kernel's name for the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def find_commit() -> str:
    """Return the commit under test; empty outside a Git repository."""
    command = ["git", "describe", "--always", "--dirty"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    return finished.stdout.strip()


def print_tables(report: Report) -> None:
    """Print the table of every section that was measured, and the goals if any of them was."""
    for section in list_sections(report.results):
        sys.stdout.write(f"\n{SECTION_TITLES[section]}\n\n{format_section(report.results, section)}\n")
    if any(goal.read(report.results) is not None for goal in GOALS):
        sys.stdout.write(f"\nGoals\n\n{format_goals(report.results)}\n")


def write_page(report: Report, page: Path = PAGE) -> None:
    """Write the page, and its plots into a folder of the same name."""
    from bench.plots import draw_plots  # matplotlib is only installed for this

    plots = draw_plots(report.results, page.with_suffix(""))
    parts = [
        "# Benchmarks",
        METHOD.read_text(encoding="utf-8").format(**report.settings),
        f"## Goals\n\n{format_goals(report.results)}",
        *(f"![{caption}]({path.relative_to(page.parent)})\n\n{caption}" for path, caption in plots),
        f"## Machine\n\nMeasured {report.started}.",
        *(", ".join(f"{name} {value}" for name, value in each.items()) for each in (report.machine, report.versions)),
        "## Figures",
        *(
            f"### {SECTION_TITLES[section]}\n\n{format_section(report.results, section)}"
            for section in list_sections(report.results)
        ),
    ]
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def list_sections(results: Results) -> list[str]:
    """Return the sections that were measured, in order."""
    return list(dict.fromkeys(measurement.section for measurement in results))


def format_section(results: Results, section: str) -> str:
    """Return the medians of a section as a Markdown table, followed by its other figures."""
    found = [each for each in results if each.section == section]
    notes = [
        f"{each.contender}: {', '.join(f'{name} {value:.4g}' for name, value in each.figures.items())}."
        for each in found
        if each.figures
    ]
    return "\n\n".join([format_table(SECTION_HEADER, map(format_row, found)), *notes])


def format_row(measurement: Measurement) -> list[str]:
    """Return the medians of a measurement as cells."""
    load = measurement.load
    processes = sorted({name for sample in measurement.samples for name in sample.cpu_us_per_item})
    cpu = {name: measurement.cpu_us_per_item(name) for name in processes}
    return [
        load.workload,
        str(load.items_per_request),
        str(load.concurrency),
        measurement.contender,
        *(format_number(measurement.median(read)) for read in (throughput, p50, p99)),
        str(sum(sample.errors for sample in measurement.samples)),
        ", ".join(f"{name} {format_number(value)}" for name, value in cpu.items() if value >= MIN_SHOWN_CPU_US),
    ]


def format_goals(results: Results) -> str:
    """Return the goals and their verdicts as a Markdown table."""
    rows = []
    for goal in GOALS:
        value = goal.read(results)
        measured, verdict = "", "not measured"
        if value is not None:
            measured, verdict = f"{format_number(value)} {goal.unit}".strip(), goal.judge(results, value)
        rows.append([goal.measure, f"{goal.at_least:g} {goal.unit}", f"{goal.aim:g} {goal.unit}", measured, verdict])
    return format_table(GOALS_HEADER, rows)


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def format_number(value: float) -> str:
    """Return a number with three significant digits, or all digits of its integer part."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
