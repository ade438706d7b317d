"""The service under load by HTTP, as clients use it."""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.errors import LoadFailedError
from bench.processes import Label, microseconds_per_item, processor_seconds
from bench.results import Load, Sample
from bench.settings import BenchSettings
from bench.wrk import ANSWER_TIMEOUT_S, run_wrk

WARMUP_S = 1.0
LONGEST_S = 60.0
"""What takes longer than this is not measured longer still."""

IDLE_POLL_S = 0.2
IDLE_SHARE = 0.3
"""Of a core: a server that uses less has nothing left to do."""


class HttpContender:
    """Any server with an OpenAI-like embeddings route."""

    def __init__(
        self,
        name: str,
        url: str,
        pid: int,
        label: Label,
        items: Mapping[str, Sequence[Any]],
        settings: BenchSettings,
        fields: Mapping[str, Any],
    ) -> None:
        """Prepare nothing yet.

        Args:
            name: What tables call it.
            url: Where to POST.
            pid: The server's first process.
            label: Names its processes.
            items: What goes into `input`, by workload.
            settings: How long to measure.
            fields: The rest of a request: model, encoding, and so on.
        """
        self.name = name
        self._url, self._pid, self._label = url, pid, label
        self._items, self._settings, self._fields = items, settings, fields
        self._seconds: dict[Load, float] = {}

    def measure(self, load: Load) -> Sample:
        """Send requests until every client has had several answers; the first time for a load, first warm up.

        Raises:
            LoadFailedError: No request succeeds, or too few are answered however long it waits.
        """
        self.warm_up(load)
        before = processor_seconds(self._pid, self._label)
        report = run_wrk(self._url, self.write_bodies(load), load.concurrency, self._seconds[load])
        after = processor_seconds(self._pid, self._label)
        self.wait_until_idle()
        if report.requests < self._settings.waves * load.concurrency / 2:  # slower than in the warm-up
            self._seconds[load] = self._lengthen(self._seconds[load])
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
            cpu_us_per_item=microseconds_per_item(before, after, items),
        )

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return embeddings (n, D) of one request."""
        body = json.dumps({**self._fields, "input": list(texts)}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self._url, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
            return np.array([each["embedding"] for each in json.load(answer)["data"]])

    def warm_up(self, load: Load) -> None:
        """The first time for a load, send requests until each client could have had an answer, and choose a length.

        Answers of the first moment come too early to tell how long one takes: their number tells.
        """
        seconds = max(WARMUP_S, self._settings.seconds / 4)
        while load not in self._seconds:
            report = run_wrk(self._url, self.write_bodies(load), load.concurrency, seconds)
            waves = report.requests / load.concurrency
            if waves >= 1:
                self._seconds[load] = max(self._settings.seconds, self._settings.waves / waves * report.seconds)
            else:
                seconds = self._lengthen(seconds)
            self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Let the server finish what the load tool no longer waits for: others are measured on the same cores next."""
        deadline = time.monotonic() + LONGEST_S
        used, before = math.inf, self._processor_seconds()
        while used > IDLE_SHARE * IDLE_POLL_S and time.monotonic() < deadline:
            time.sleep(IDLE_POLL_S)
            now = self._processor_seconds()
            used, before = now - before, now

    def _processor_seconds(self) -> float:
        return sum(processor_seconds(self._pid, self._label).values())

    def _lengthen(self, seconds: float) -> float:
        if seconds > LONGEST_S:
            raise LoadFailedError(f"{self.name} has too few answers in {seconds:.0f} s")
        return 2 * seconds

    def write_bodies(self, load: Load) -> Path:
        """Write the requests of a load, one a line."""
        name = f"{self.name}-{load.workload}-{load.items_per_request}.jsonl".replace(" ", "_").replace("/", "_")
        path = self._settings.build_dir / "bodies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        items, size = self._items[load.workload], load.items_per_request
        requests = [list(items[start : start + size]) for start in range(0, len(items) - size + 1, size)]
        path.write_text("".join(json.dumps({**self._fields, "input": each}) + "\n" for each in requests))
        return path
