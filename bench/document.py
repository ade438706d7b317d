"""`docs/benchmarks.md`: a run as a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.plots import draw_plots
from bench.report import Report
from bench.settings import PROJECT
from bench.tables import goals_table, section_table, sections_of

PAGE = PROJECT / "docs" / "benchmarks.md"
PICTURES = PROJECT / "docs" / "benchmarks"

METHOD = Path(__file__).with_name("method.md")
"""How it was measured; the settings are filled in."""

TITLES = {
    "throughput": "12-word texts",
    "peers": "Other servers",
    "padding": "Packed against padded, bare loop",
    "int8": "int8 against fp32, bare loop",
    "lengths": "Cost against length",
    "responses": "Forms of an answer",
    "pages": "Page images, and pages among texts",
    "interference": "Short texts while pages stream",
    "preprocessing": "A page from file to patches, one core",
    "gateway_alone": "The gateway in front of an engine that answers at once",
    "triton": "Triton without the gateway",
    "growth": "One long run",
}


def write_page(report: Report) -> None:
    """Write the page and its pictures."""
    pictures = draw_plots(report.results, PICTURES)
    parts = [
        "# Benchmarks",
        METHOD.read_text(encoding="utf-8").format(**report.settings),
        f"## Goals\n\n{goals_table(report.results)}",
        *(f"![{caption}]({path.relative_to(PAGE.parent)})\n\n{caption}" for path, caption in pictures),
        f"## Machine\n\nMeasured {report.started}.\n\n{listing(report.machine)}\n\n{listing(report.versions)}",
        "## Figures",
        *(f"### {TITLES[name]}\n\n{section_table(report.results, name)}" for name in sections_of(report.results)),
    ]
    PAGE.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def listing(values: Mapping[str, str]) -> str:
    """Return names and values as one line each paragraph."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
