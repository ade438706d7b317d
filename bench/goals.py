"""Goals: each is one figure, computed from the results of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.peers import INFINITY_OPTIMUM, INFINITY_TORCH
from bench.results import Load, Results, Sample, p50, p99, ratio, throughput
from bench.sections import INT8_LOAD, MEAN_COSINE, make_padding_load
from bench.workloads import MIXED, PNG_PAGES, SHORT

# Computes a figure from results; None if the measurements are missing.
Read = Callable[[Results], float | None]

MIN_MEAN_COSINE = 0.99

ONE_CLIENT, SOME_CLIENTS, MANY_CLIENTS = Load(SHORT, 1, 1), Load(SHORT, 1, 16), Load(SHORT, 1, 64)
LARGE_REQUESTS = Load(SHORT, 32, 16)


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        measure: Name of the figure.
        at_least: Value that meets the goal.
        aim: Value to aim for.
        read: Computes the figure.
        lower_is_better: Whether `at_least` and `aim` are upper bounds.
        unit: Unit of the figure; empty for a ratio.
        condition: The goal is missed unless this holds, whatever the figure.
    """

    measure: str
    at_least: float
    aim: float
    read: Read
    lower_is_better: bool = False
    unit: str = ""
    condition: Callable[[Results], bool] = lambda _: True

    def judge(self, results: Results, value: float) -> str:
        """Return "aim met", "met" or "missed", given the results and the figure computed from them."""
        sign = -1 if self.lower_is_better else 1
        if not (self.condition(results) and sign * value >= sign * self.at_least):
            return "missed"
        return "aim met" if sign * value >= sign * self.aim else "met"


def compare(section: str, over: str, under: str, load: Load, figure: Callable[[Sample], float] = throughput) -> Read:
    """Return the ratio of a figure between two contenders under the same load."""
    return lambda results: ratio(results.find(section, over, load), results.find(section, under, load), figure)


def compare_with_infinity(load: Load, figure: Callable[[Sample], float] = throughput) -> Read:
    """Return the ratio of a figure between the gateway and infinity's better engine; both must be measured."""
    choose = max if figure is throughput else min

    def read(results: Results) -> float | None:
        found = [results.find("peers", peer.name, load) for peer in (INFINITY_TORCH, INFINITY_OPTIMUM)]
        engines = [each for each in found if each is not None]
        if len(engines) < len(found):
            return None
        best = choose(engines, key=lambda each: each.median(figure))
        return ratio(results.find("peers", "gateway", load), best, figure)

    return read


def gateway_cpu(load: Load, scale: float = 1.0) -> Read:
    """Return the gateway's CPU time per item, in microseconds multiplied by `scale`."""

    def read(results: Results) -> float | None:
        found = results.find("throughput", "gateway", load)
        return None if found is None else found.cpu_us_per_item("gateway") * scale

    return read


def read_growth(results: Results) -> float | None:
    """Return the cost of an item at the end of a long run divided by that at its start."""
    parts = [each for each in results if each.section == "growth"]
    if len(parts) < 2:
        return None
    return parts[0].median(throughput) / parts[-1].median(throughput)


def int8_agrees(results: Results) -> bool:
    """Return whether int8 embeddings are close enough to fp32 for their speed to count."""
    found = results.find("int8", "int8", INT8_LOAD)
    return found is not None and found.figures[MEAN_COSINE] >= MIN_MEAN_COSINE


GOALS = (
    Goal(
        "gateway ÷ engine limit, 32 items per request",
        0.95,
        1.0,
        compare("throughput", "gateway", "engine", LARGE_REQUESTS),
    ),
    Goal(
        "gateway ÷ engine limit, 1 item, 64 clients",
        0.75,
        0.9,
        compare("throughput", "gateway", "engine", MANY_CLIENTS),
    ),
    Goal("gateway ÷ infinity, 1 item, 16 clients", 3, 5, compare_with_infinity(SOME_CLIENTS)),
    Goal("gateway ÷ infinity, 1 item, 64 clients", 3, 5, compare_with_infinity(MANY_CLIENTS)),
    Goal("p99 ÷ infinity's, 1 item, 16 clients", 0.5, 0.25, compare_with_infinity(SOME_CLIENTS, p99), True),
    Goal("p99 ÷ infinity's, 1 item, 64 clients", 0.5, 0.25, compare_with_infinity(MANY_CLIENTS, p99), True),
    Goal("packed ÷ padded, mixed lengths", 2, 4, compare("padding", "packed", "padded", make_padding_load(MIXED))),
    Goal(
        f"int8 ÷ fp32, bare loop, mean cosine at least {MIN_MEAN_COSINE}",
        1.8,
        2.5,
        compare("int8", "int8", "fp32", INT8_LOAD),
        condition=int8_agrees,
    ),
    Goal(
        "short text's p99 beside seven-tile pages ÷ alone",
        4,
        2,
        compare("interference", "texts beside pages", "texts alone", ONE_CLIENT, p99),
        True,
    ),
    Goal("gateway CPU per item, 32 items per request", 80, 40, gateway_cpu(LARGE_REQUESTS), True, "µs"),
    Goal("gateway CPU per request, 1 item, 64 clients", 0.7, 0.35, gateway_cpu(MANY_CLIENTS, 1e-3), True, "ms"),
    Goal(
        "preprocessing of a page ÷ Pillow's decode and resize",
        1.3,
        1.1,
        compare("preprocessing", "worker", "Pillow", Load(PNG_PAGES, 1, 1), p50),
        True,
    ),
    Goal(
        "p50 of one short text, idle ÷ engine alone",
        2,
        1.4,
        compare("throughput", "gateway", "engine", ONE_CLIENT, p50),
        True,
    ),
    Goal("cost per item after 100,000 items ÷ in the first 1,000", 1.1, 1.0, read_growth, True),
)
