"""The goals: one figure each, drawn from a run's results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.pages import PNG_PAGES
from bench.peers.servers import INFINITY_OPTIMUM, INFINITY_TORCH
from bench.results import Load, Results, Sample, ratio, throughput
from bench.sections import growth, int8, interference, padding, peers, preprocessing
from bench.sections import throughput as throughput_section
from bench.workloads import MIXED, SHORT

Read = Callable[[Results], "float | None"]
"""Draws a figure from results; None if they lack what it takes."""

GRID = throughput_section.NAME
LEAST_MEAN_COSINE = 0.99


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
        condition: Without it the goal is missed, whatever the figure.
    """

    measure: str
    at_least: float
    aim: float
    read: Read
    lower_is_better: bool = False
    unit: str = ""
    condition: Callable[[Results], bool] = lambda _: True

    def verdict(self, results: Results, value: float) -> str:
        """Say whether results meet the goal, given the figure drawn from them."""
        return self.judge(value) if self.condition(results) else "missed"

    def judge(self, value: float) -> str:
        """Say whether a figure meets the goal."""
        sign = -1 if self.lower_is_better else 1
        if sign * value >= sign * self.aim:
            return "aim met"
        return "met" if sign * value >= sign * self.at_least else "missed"


def p50(sample: Sample) -> float:
    """Return the median time of a request, in milliseconds."""
    return sample.p50_ms


def p99(sample: Sample) -> float:
    """Return the 99th percentile of a request's time, in milliseconds."""
    return sample.p99_ms


def compare(section: str, over: str, under: str, load: Load, figure: Callable[[Sample], float] = throughput) -> Read:
    """Return how to read one contender's figure over another's under the same load."""
    return lambda results: ratio(results.find(section, over, load), results.find(section, under, load), figure)


def compare_with_infinity(load: Load, figure: Callable[[Sample], float] = throughput) -> Read:
    """Return how to read the gateway's figure over that of infinity's better engine; both are needed."""
    choose = max if figure is throughput else min

    def read(results: Results) -> float | None:
        found = [results.find(peers.NAME, peer.name, load) for peer in (INFINITY_TORCH, INFINITY_OPTIMUM)]
        engines = [each for each in found if each is not None]
        if len(engines) < len(found):
            return None
        best = choose(engines, key=lambda each: each.median(figure))
        return ratio(results.find(peers.NAME, "gateway", load), best, figure)

    return read


def gateway_cpu(load: Load, scale: float = 1.0) -> Read:
    """Return how to read the gateway's processor time of an item, in microseconds times `scale`."""

    def read(results: Results) -> float | None:
        found = results.find(GRID, "gateway", load)
        return None if found is None else found.cpu_us_per_item("gateway") * scale

    return read


def read_growth(results: Results) -> float | None:
    """Return the cost of an item at the end of a long run over that at its start."""
    parts = [each for each in results if each.section == growth.NAME]
    if len(parts) < 2:
        return None
    return parts[0].median(throughput) / parts[-1].median(throughput)


def int8_agrees(results: Results) -> bool:
    """Whether embeddings in int8 are close enough to those in fp32 for their speed to count."""
    found = results.find(int8.NAME, "int8", int8.LOAD)
    return found is not None and found.figures[int8.MEAN_COSINE] >= LEAST_MEAN_COSINE


ONE_CLIENT, MANY_CLIENTS, LARGE = Load(SHORT, 1, 1), Load(SHORT, 1, 64), Load(SHORT, 32, 16)
SOME_CLIENTS = Load(SHORT, 1, 16)

GOALS = (
    Goal("gateway ÷ engine limit, 32 items per request", 0.95, 1.0, compare(GRID, "gateway", "engine", LARGE)),
    Goal("gateway ÷ engine limit, 1 item, 64 clients", 0.75, 0.9, compare(GRID, "gateway", "engine", MANY_CLIENTS)),
    Goal("gateway ÷ infinity, 1 item, 16 clients", 3, 5, compare_with_infinity(SOME_CLIENTS)),
    Goal("gateway ÷ infinity, 1 item, 64 clients", 3, 5, compare_with_infinity(MANY_CLIENTS)),
    Goal("p99 ÷ infinity's, 1 item, 16 clients", 0.5, 0.25, compare_with_infinity(SOME_CLIENTS, p99), True),
    Goal("p99 ÷ infinity's, 1 item, 64 clients", 0.5, 0.25, compare_with_infinity(MANY_CLIENTS, p99), True),
    Goal("packed ÷ padded, mixed lengths", 2, 4, compare(padding.NAME, "packed", "padded", padding.load(MIXED))),
    Goal(
        f"int8 ÷ fp32, bare loop, mean cosine at least {LEAST_MEAN_COSINE}",
        1.8,
        2.5,
        compare(int8.NAME, "int8", "fp32", int8.LOAD),
        condition=int8_agrees,
    ),
    Goal(
        "short text's p99 beside seven-tile pages ÷ alone",
        4,
        2,
        compare(interference.NAME, "texts beside pages", "texts alone", ONE_CLIENT, p99),
        True,
    ),
    Goal("gateway CPU per item, 32 items per request", 80, 40, gateway_cpu(LARGE), True, "µs"),
    Goal("gateway CPU per request, 1 item, 64 clients", 0.7, 0.35, gateway_cpu(MANY_CLIENTS, 1e-3), True, "ms"),
    Goal(
        "preprocessing of a page ÷ Pillow's decode and resize",
        1.3,
        1.1,
        compare(preprocessing.NAME, "worker", "Pillow", Load(PNG_PAGES, 1, 1), p50),
        True,
    ),
    Goal(
        "p50 of one short text, idle ÷ engine alone", 2, 1.4, compare(GRID, "gateway", "engine", ONE_CLIENT, p50), True
    ),
    Goal("cost per item after 100,000 items ÷ in the first 1,000", 1.1, 1.0, read_growth, True),
)
