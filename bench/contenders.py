"""Contenders: what can be put under a load, and how they take turns.

`EngineLoop` and `PageLoop`, which run in the benchmark's own process, are in `bench.engine` and `bench.page_sections`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.errors import BenchError, LoadFailedError, WindowTooShortError
from bench.load_generators import MIN_WINDOWS, RESPONSE_TIMEOUT_S, run_perf_analyzer, run_wrk
from bench.results import Load, Measurement, Sample, p50, p99, throughput
from bench.servers import Server, Service, compute_cpu_us_per_item, post_json
from bench.settings import BenchSettings

log = logging.getLogger(__name__)

WARMUP_S = 1.0
# A run that already takes longer than this is not extended.
MAX_EXTENDED_S = 60.0
IDLE_POLL_S = 0.2
MAX_IDLE_WAIT_S = 60.0
# Share of a core: a server that uses less is idle.
IDLE_CPU_SHARE = 0.3


class Contender(Protocol):
    """Something that embeds items and can be timed doing so."""

    @property
    def name(self) -> str:
        """Name in tables."""

    def measure(self, load: Load) -> Sample:
        """Put it under a load for a while."""


class Embedder(Protocol):
    """A contender whose embeddings can be compared with another's."""

    @property
    def name(self) -> str:
        """Name in tables."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Return embeddings (n, D)."""


def measure_in_turns(section: str, contenders: Sequence[Contender], load: Load, rounds: int) -> list[Measurement]:
    """Measure every contender once per round, so that other work on the machine affects all of them alike.

    Args:
        section: Section of the benchmark that asks.
        contenders: Contenders in the order of their turns.
        load: Load for all of them.
        rounds: Number of rounds.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            samples[contender.name].append(contender.measure(load))
    measurements = [Measurement(section, name, load, of_name) for name, of_name in samples.items()]
    for measurement in measurements:
        log_measurement(measurement)
    return measurements


def log_measurement(measurement: Measurement) -> None:
    """Log the medians of a measurement."""
    load = measurement.load
    log.info(
        "%s: %s, %d per request, %d clients: %s %.1f items/s, p50 %.1f ms, p99 %.1f ms, %d failed",
        measurement.section,
        load.workload,
        load.items_per_request,
        load.concurrency,
        measurement.contender,
        measurement.median(throughput),
        measurement.median(p50),
        measurement.median(p99),
        sum(sample.errors for sample in measurement.samples),
    )


def check_same_embeddings(embedders: Sequence[Embedder], texts: Sequence[str], tolerance: float) -> None:
    """Compare all embeddings with those of the first: a contender that computes something else is not comparable.

    Raises:
        BenchError: They differ by more than the tolerance.
    """
    first, *others = [embedder.embed(texts) for embedder in embedders]
    for embedder, embeddings in zip(embedders[1:], others, strict=True):
        error = float(np.abs(embeddings - first).max())
        if not error <= tolerance:  # NaN is not
            raise BenchError(f"the embeddings of {embedders[0].name} and {embedder.name} differ by {error:.1e}")


class HttpContender:
    """A server with an OpenAI-like embeddings route, under load from wrk.

    Args:
        name: Name in tables.
        server: The running server.
        items: Values of `input`, by workload.
        settings: How long to measure.
        fields: Other fields of a request: model, encoding and so on.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        items: Mapping[str, Sequence[str]],
        settings: BenchSettings,
        fields: Mapping[str, object],
    ) -> None:
        self.name = name
        self._server, self._items, self._settings, self._fields = server, items, settings, fields
        self._seconds: dict[Load, float] = {}

    def measure(self, load: Load) -> Sample:
        """Send requests until every client has had several responses; warm up first if the load is new.

        Raises:
            LoadFailedError: No request succeeds, or too few complete even in a long run.
        """
        self.warm_up(load)
        before = self._server.read_cpu_seconds()
        report = run_wrk(self._server.url, self._write_bodies(load), load.concurrency, self._seconds[load])
        after = self._server.read_cpu_seconds()
        self._wait_until_idle()
        if report.requests < self._settings.waves * load.concurrency / 2:  # slower than during the warm-up
            self._seconds[load] = self._extend(self._seconds[load])
            return self.measure(load)
        items = (report.requests - report.statuses) * load.items_per_request
        if not items:
            raise LoadFailedError(f"{self.name} refuses every request of {load}")
        return Sample(
            items_per_s=items / report.seconds,
            p50_ms=report.p50_ms,
            p99_ms=report.p99_ms,
            requests=report.requests,
            errors=report.statuses + report.broken,
            cpu_us_per_item=compute_cpu_us_per_item(before, after, items),
        )

    def warm_up(self, load: Load) -> None:
        """Send requests until each client could have had a response, and choose how long to measure.

        The length follows from the number of responses: the latency of the first ones would be misleading.
        """
        seconds = max(WARMUP_S, self._settings.seconds / 4)
        while load not in self._seconds:
            report = run_wrk(self._server.url, self._write_bodies(load), load.concurrency, seconds)
            waves = report.requests / load.concurrency
            if waves >= 1:
                self._seconds[load] = max(self._settings.seconds, self._settings.waves / waves * report.seconds)
            else:
                seconds = self._extend(seconds)
            self._wait_until_idle()

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return embeddings (n, D) from one request."""
        response = post_json(self._server.url, {**self._fields, "input": list(texts)}, RESPONSE_TIMEOUT_S)
        return np.array([each["embedding"] for each in response["data"]])

    def _wait_until_idle(self) -> None:
        """Let the server finish what wrk no longer waits for: the next contender runs on the same cores."""
        deadline = time.monotonic() + MAX_IDLE_WAIT_S
        used, before = math.inf, self._read_total_cpu_seconds()
        while used > IDLE_CPU_SHARE * IDLE_POLL_S and time.monotonic() < deadline:
            time.sleep(IDLE_POLL_S)
            now = self._read_total_cpu_seconds()
            used, before = now - before, now

    def _read_total_cpu_seconds(self) -> float:
        return sum(self._server.read_cpu_seconds().values())

    def _extend(self, seconds: float) -> float:
        if seconds > MAX_EXTENDED_S:
            raise LoadFailedError(f"{self.name} completes too few requests in {seconds:.0f} s")
        return 2 * seconds

    def _write_bodies(self, load: Load) -> Path:
        name = f"{self.name}-{load.workload}-{load.items_per_request}.jsonl".replace(" ", "_").replace("/", "_")
        path = self._settings.build_dir / "bodies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        inputs = split_items(self._items[load.workload], load.items_per_request)
        path.write_text("".join(json.dumps({**self._fields, "input": each}) + "\n" for each in inputs))
        return path


class TritonContender:
    """An ensemble without the gateway, under load from perf_analyzer.

    Args:
        tool: Folder of perf_analyzer.
        model: Name of the ensemble.
        service: The running service.
        texts: Texts by workload.
        seconds: Length of one measurement.
    """

    name = "triton"

    def __init__(
        self, tool: Path, model: str, service: Service, texts: Mapping[str, Sequence[str]], seconds: float
    ) -> None:
        self._tool, self._model, self._service = tool, model, service
        self._texts, self._seconds = texts, seconds
        self._windows_s: dict[Load, float] = {}

    def measure(self, load: Load) -> Sample:
        """Send requests for a while, longer if there is not a response in every window."""
        size, address = load.items_per_request, self._service.grpc_address
        requests = [{"text": texts} for texts in split_items(self._texts[load.workload], size)]
        window_s = self._windows_s.get(load, self._seconds / MIN_WINDOWS)
        before = self._service.read_cpu_seconds()
        try:
            columns = run_perf_analyzer(self._tool, self._model, address, requests, load.concurrency, window_s)
        except WindowTooShortError:
            self._windows_s[load] = 2 * window_s
            return self.measure(load)
        after = self._service.read_cpu_seconds()
        completed = round(columns["Inferences/Second"] * window_s * MIN_WINDOWS)
        return Sample(
            items_per_s=columns["Inferences/Second"] * size,
            p50_ms=columns["p50 latency"] / 1e3,
            p99_ms=columns["p99 latency"] / 1e3,
            requests=completed,
            cpu_us_per_item=compute_cpu_us_per_item(before, after, max(1, completed * size)),
        )


def split_items(items: Sequence[str], size: int) -> list[list[str]]:
    """Split items into requests of one size; items left over are dropped."""
    return [list(items[start : start + size]) for start in range(0, len(items) - size + 1, size)]
