"""The goals: one figure each, read from a run's results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.results import Measurement, Results, Sample, ratio
from bench.workloads import SHORT

Read = Callable[[Results], "float | None"]
"""Draws a figure from results; None if they lack what it takes."""


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        measure: What it is, in words.
        at_least: The figure to reach.
        aim: The figure to strive for.
        read: Draws it from results.
        lower_is_better: Whether the figures are upper bounds.
        unit: Of the figure; empty for a ratio.
    """

    measure: str
    at_least: float
    aim: float
    read: Read
    lower_is_better: bool = False
    unit: str = ""

    def judge(self, value: float) -> str:
        """Say whether a figure meets the goal."""
        sign = -1 if self.lower_is_better else 1
        if sign * value >= sign * self.aim:
            return "aim met"
        return "met" if sign * value >= sign * self.at_least else "missed"


def of_engine_limit(items: int, concurrency: int) -> Read:
    """Return how to read the gateway's throughput over the engine limit's."""
    place = ("throughput", SHORT, items, concurrency)
    return lambda results: ratio(_find(results, "gateway", *place), _find(results, "engine", *place))


def gateway_cpu(items: int, concurrency: int, scale: float) -> Read:
    """Return how to read the gateway's processor time of an item, scaled to another unit."""

    def read(results: Results) -> float | None:
        found = _find(results, "gateway", "throughput", SHORT, items, concurrency)
        return None if found is None else found.cpu_us_per_item("gateway") * scale

    return read


def _p50(sample: Sample) -> float:
    return sample.p50_ms


def idle_latency(results: Results) -> float | None:
    """Return the median time of one short text at an idle service over the engine's alone."""
    place = ("throughput", SHORT, 1, 1)
    return ratio(_find(results, "gateway", *place), _find(results, "engine", *place), _p50)


def _find(
    results: Results, contender: str, section: str, workload: str, items: int, concurrency: int
) -> Measurement | None:
    return results.find(section, contender, workload, items, concurrency)


GOALS = (
    Goal("gateway ÷ engine limit, 32 items per request", 0.95, 1.0, of_engine_limit(32, 16)),
    Goal("gateway ÷ engine limit, 1 item, concurrency 64", 0.75, 0.9, of_engine_limit(1, 64)),
    Goal("gateway CPU per item, 32 items per request", 80, 40, gateway_cpu(32, 16, 1), True, "µs"),
    Goal("gateway CPU per request, 1 item", 0.7, 0.35, gateway_cpu(1, 64, 1e-3), True, "ms"),
    Goal("p50 of one short text, idle server ÷ engine alone", 2, 1.4, idle_latency, True),
)
