"""A run's figures as text tables: on the terminal and in `docs/benchmarks.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from bench.goals import GOALS
from bench.report import Report
from bench.results import Measurement, Results

HEADER = ("workload", "items", "clients", "contender", "items/s", "p50 ms", "p99 ms", "failed", "CPU µs per item")


def print_tables(report: Report) -> None:
    """Print every section's figures and the goals."""
    for section in sections_of(report.results):
        sys.stdout.write(f"\n{section}\n\n{section_table(report.results, section)}\n")
    sys.stdout.write(f"\ngoals\n\n{goals_table(report.results)}\n")


def sections_of(results: Results) -> list[str]:
    """Return the sections that were measured, in order."""
    return list(dict.fromkeys(measurement.section for measurement in results))


def section_table(results: Results, section: str) -> str:
    """Return one section's medians as a Markdown table, with what else was found out below it."""
    found = [each for each in results if each.section == section]
    notes = [f"{each.contender}: {listing(each.figures)}." for each in found if each.figures]
    return "\n\n".join([markdown(HEADER, map(row, found)), *notes])


def listing(figures: Mapping[str, float]) -> str:
    """Return names and figures as one line, with digits enough for what is close to 1."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def row(measurement: Measurement) -> list[str]:
    """Return the medians of a measurement as cells."""
    load = measurement.load
    processes = sorted({name for sample in measurement.samples for name in sample.cpu_us_per_item})
    cpu = {name: measurement.cpu_us_per_item(name) for name in processes}
    return [
        load.workload,
        str(load.items_per_request),
        str(load.concurrency),
        measurement.contender,
        figure(measurement.median(lambda sample: sample.items_per_s)),
        figure(measurement.median(lambda sample: sample.p50_ms)),
        figure(measurement.median(lambda sample: sample.p99_ms)),
        str(sum(sample.errors for sample in measurement.samples)),
        ", ".join(f"{name} {figure(value)}" for name, value in cpu.items() if value >= 1),
    ]


def goals_table(results: Results) -> str:
    """Return the goals with what was measured; those that this run says nothing about are marked so."""
    rows = []
    for goal in GOALS:
        value = goal.read(results)
        shown = (
            ("", "not measured")
            if value is None
            else (f"{figure(value)} {goal.unit}".strip(), goal.verdict(results, value))
        )
        rows.append([goal.measure, f"{goal.at_least:g} {goal.unit}", f"{goal.aim:g} {goal.unit}", *shown])
    return markdown(("measure", "at least", "aim", "measured", "verdict"), rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with its columns aligned."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def figure(value: float) -> str:
    """Return a number with as many digits as mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
