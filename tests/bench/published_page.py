"""Reads the figures of docs/benchmarks.md back."""

import re
from collections.abc import Iterator

from bench.report import PAGE, SECTION_TITLES
from bench.results import Load, Measurement, Results, Sample


def read_published_results() -> Results:
    """Return the published medians, as a run of one round."""
    return Results(_read_measurements(PAGE.read_text(encoding="utf-8").partition("\n## Figures\n")[2]))


def _read_measurements(figures: str) -> Iterator[Measurement]:
    sections = {title: section for section, title in SECTION_TITLES.items()}
    for part in figures.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        notes = dict(re.findall(r"^(\w+): (.*)\.$", body, re.MULTILINE))
        rows = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("| ")][2:]
        for workload, items, clients, contender, *values, cpu in ([cell.strip() for cell in row] for row in rows):
            items_per_s, p50_ms, p99_ms, failed = map(float, values)
            sample = Sample(items_per_s, p50_ms, p99_ms, 1, int(failed), _read_pairs(cpu))
            load = Load(workload, int(items), int(clients))
            figures_of = _read_pairs(notes.get(contender, ""))
            yield Measurement(sections[title], contender, load, [sample], figures_of)


def _read_pairs(text: str) -> dict[str, float]:
    pairs = (pair.rpartition(" ") for pair in text.split(", ") if pair)
    return {name: float(value) for name, _, value in pairs}
