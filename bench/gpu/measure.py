"""Measurements of one engine: how close its embeddings are, how many it computes, and how long a query waits."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.onnx_engine import Device, Engine, Run
from bench.gpu.workloads import Batch, count_tokens
from export.validation import Agreement, compare_embeddings

WARM_UP_RUNS = 2
MIN_RUNS = 3
PEAK_PRODUCTS, PEAK_ROUNDS = 10, 5

# Shares of an engine's time that requests of passages and queries take at half load.
PASSAGES_SHARE, QUERIES_SHARE = 0.4, 0.1
ARRIVALS_SEED = 5


@dataclass(frozen=True)
class Speed:
    """How fast an engine embeds batches of a workload, one after the other.

    Attributes:
        engine: Name of the engine.
        workload: Name of the workload.
        items: Items of a batch.
        tokens: Tokens of a batch, without padding.
        run_ms: Median time of a run.
        runs: Number of runs measured.
    """

    engine: str
    workload: str
    items: int
    tokens: int
    run_ms: float
    runs: int

    @property
    def tokens_per_s(self) -> float:
        """Throughput in tokens."""
        return self.tokens / self.run_ms * 1e3

    @property
    def items_per_s(self) -> float:
        """Throughput in items."""
        return self.items / self.run_ms * 1e3


@dataclass(frozen=True)
class Latency:
    """How long a query takes from its arrival to its embedding.

    Attributes:
        engine: Name of the engine.
        load: What else the engine does.
        p50_ms: Median.
        p99_ms: 99th percentile.
        queries: Number of queries.
    """

    engine: str
    load: str
    p50_ms: float
    p99_ms: float
    queries: int


class Budget:
    """Time that is left for the whole run.

    Args:
        seconds: Length of the run.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds until the run should be over; negative after that."""
        return self._deadline - time.monotonic()


def measure_peak(device: Device, side: int) -> float:
    """Return the floating-point operations per second of one large matrix product of random numbers.

    Args:
        device: On a GPU the numbers are float16, elsewhere float32.
        side: Rows and columns of each matrix.
    """
    dtype = torch.float16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(1 + PEAK_ROUNDS):
        wait_for(device)
        started = time.perf_counter()
        for _ in range(PEAK_PRODUCTS):
            torch.matmul(left, right)
        wait_for(device)
        rates.append(PEAK_PRODUCTS * 2 * side**3 / (time.perf_counter() - started))
    return max(rates[1:])


def wait_for(device: Device) -> None:
    """Wait until the device has done what PyTorch has started."""
    if device == "cuda":
        torch.cuda.synchronize()


def embed_one_by_one(engine: Engine, batch: Batch) -> NDArray[np.float32]:
    """Return embeddings (items, dimensions), each computed alone: without padding, and without neighbours."""
    return np.concatenate([engine.prepare([item])() for item in batch])


def compare(engine: Engine, samples: Mapping[str, Batch], expected: Mapping[str, NDArray[np.float32]]) -> Agreement:
    """Compare an engine's embeddings with the expected ones, a batch for each kind of samples.

    Raises:
        ValidationError: A component is not finite.
    """
    found = [engine.prepare(batch)() for batch in samples.values()]
    return compare_embeddings(np.concatenate(found), np.concatenate([expected[name] for name in samples]))


def measure_speed(engine: Engine, workload: str, batch: Batch, seconds: float) -> Speed:
    """Embed the same batch again and again."""
    run = engine.prepare(batch)
    for _ in range(WARM_UP_RUNS):
        run()
    times = [time_run(run)]
    while sum(times) < seconds or len(times) < MIN_RUNS:
        times.append(time_run(run))
    return Speed(engine.name, workload, len(batch), count_tokens(batch), median(times) * 1e3, len(times))


def time_run(run: Run) -> float:
    """Return the seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure_query_alone(engine: Engine, query: Batch, seconds: float) -> Latency:
    """Embed one query after the other."""
    run = engine.prepare(query)
    for _ in range(WARM_UP_RUNS):
        run()
    times: list[float] = []
    while sum(times) < seconds or len(times) < MIN_RUNS:
        times.append(time_run(run))
    return summarize(engine, "alone", times)


def measure_query_at_half_load(engine: Engine, query: Batch, request: Batch, seconds: float) -> Latency:
    """Embed queries and requests of passages in order of arrival, at random times that keep the engine half busy."""
    run_query, run_request = engine.prepare(query), engine.prepare(request)
    for run in (run_query, run_request):
        for _ in range(WARM_UP_RUNS):
            run()
    query_s, request_s = (median(time_run(run) for _ in range(MIN_RUNS)) for run in (run_query, run_request))
    arrivals = deque(
        sorted(
            [(at, run_query) for at in draw_arrivals(query_s / QUERIES_SHARE, seconds)]
            + [(at, run_request) for at in draw_arrivals(request_s / PASSAGES_SHARE, seconds)],
            key=lambda arrival: arrival[0],
        )
    )
    times: list[float] = []
    started = time.perf_counter()
    for at, run in arrivals:
        while time.perf_counter() - started < at:  # a sleep would wake up too late
            pass
        run()
        if run is run_query:
            times.append(time.perf_counter() - started - at)
    return summarize(engine, "half load", times)


def draw_arrivals(interval_s: float, seconds: float) -> list[float]:
    """Return random times at which something arrives, independently of the others, at least one.

    Args:
        interval_s: Mean time between two.
        seconds: When to stop.
    """
    chooser = random.Random(ARRIVALS_SEED + interval_s)  # noqa: S311 - not a secret
    times = [chooser.expovariate(1 / interval_s)]
    while times[-1] < seconds:
        times.append(times[-1] + chooser.expovariate(1 / interval_s))
    return times


def summarize(engine: Engine, load: str, times: Sequence[float]) -> Latency:
    """Return the percentiles of latencies in seconds."""
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return Latency(engine.name, load, float(p50), float(p99), len(times))
