"""Triton's ensemble by gRPC, without the gateway, under the load of perf_analyzer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.perf_analyzer import MIN_WINDOWS, WindowTooShortError, run_perf_analyzer
from bench.processes import microseconds_per_item, processor_seconds
from bench.results import Load, Sample
from bench.service import Service, name_process


class TritonContender:
    """The text ensemble."""

    name = "triton"

    def __init__(
        self, tool: Path, model: str, service: Service, texts: Mapping[str, Sequence[str]], seconds: float
    ) -> None:
        """Prepare nothing yet.

        Args:
            tool: Folder of perf_analyzer.
            model: The ensemble.
            service: Running.
            texts: By workload.
            seconds: Length of one measurement.
        """
        self._tool, self._model, self._service = tool, model, service
        self._texts, self._seconds = texts, seconds
        self._windows_s: dict[Load, float] = {}

    def measure(self, load: Load) -> Sample:
        """Send requests for a while, longer if that is too short for an answer in every window."""
        texts, size = self._texts[load.workload], load.items_per_request
        requests = [{"text": texts[start : start + size]} for start in range(0, len(texts) - size + 1, size)]
        before = processor_seconds(self._service.pid, name_process)
        window_s = self._windows_s.get(load, self._seconds / MIN_WINDOWS)
        try:
            columns = run_perf_analyzer(
                self._tool, self._model, self._service.grpc_address, requests, load.concurrency, window_s
            )
        except WindowTooShortError:
            self._windows_s[load] = 2 * window_s
            return self.measure(load)
        after = processor_seconds(self._service.pid, name_process)
        answered = round(columns["Inferences/Second"] * window_s * MIN_WINDOWS)
        return Sample(
            items_per_s=columns["Inferences/Second"] * size,
            p50_ms=columns["p50 latency"] / 1e3,
            p99_ms=columns["p99 latency"] / 1e3,
            requests=answered,
            cpu_us_per_item=microseconds_per_item(before, after, max(1, answered * size)),
        )
