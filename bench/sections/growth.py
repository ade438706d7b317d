"""Whether an item costs as much after 100,000 items as after a thousand, in one run without a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.results import Load, Measurement, Sample
from bench.rounds import report
from bench.workbench import Workbench
from bench.workloads import TINY

NAME = "growth"
CLIENTS = 4


def run(workbench: Workbench) -> list[Measurement]:
    """Measure slices of time until enough items have passed."""
    settings = workbench.settings
    load = Load(TINY, max(settings.items_per_request), CLIENTS)
    slices: list[tuple[int, Sample]] = []
    passed = 0
    while passed < settings.growth_items[-1]:
        sample = workbench.gateway.measure(load)
        passed += sample.requests * load.items_per_request
        slices.append((passed, sample))
    measurements = [
        Measurement(NAME, "gateway", replace(load, workload=growth_workload(end)), between(slices, start, end))
        for start, end in zip((0, *settings.growth_items), settings.growth_items, strict=False)
    ]
    for measurement in measurements:
        report(measurement)
    return measurements


def growth_workload(end: int) -> str:
    """Return what the part of the run up to so many items is called."""
    return f"{TINY}, to {end} items"


def between(slices: Sequence[tuple[int, Sample]], start: int, end: int) -> list[Sample]:
    """Return the slices that ended after `start` items and by `end`; at least the first that ended after `start`."""
    later = [(passed, sample) for passed, sample in slices if passed > start]
    return [sample for passed, sample in later if passed <= end] or [later[0][1]]
