"""A well-behaved client beside an attack: it sends the same text again and again, and checks every answer."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

INTERVAL_S = 0.1
TIMEOUT_S = 30.0
MIN_REQUESTS = 5


@dataclass
class Canary:
    """Sends a request every tenth of a second for as long as the block lasts, and until there have been a few.

    Attributes:
        url: Of the service.
        body: Of the request.
        seconds: How long each response took.
        faults: What was wrong, a line for each request.
    """

    url: str
    body: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._expected = self._embed()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while len(self.seconds) < MIN_REQUESTS and self._thread.is_alive():
            time.sleep(INTERVAL_S)
        self._stopping.set()
        self._thread.join()

    def check(self, p99_s: float) -> None:
        """Assert that every request got the right vector, and in time."""
        assert not self.faults, self.faults[:5]
        assert float(np.percentile(self.seconds, 99)) < p99_s

    def _embed(self) -> np.ndarray:
        response = httpx.post(f"{self.url}/v1/embeddings", json=self.body, timeout=TIMEOUT_S)
        assert response.status_code == 200, f"{response.status_code} {response.text[:200]}"
        return np.array([entry["embedding"] for entry in response.json()["data"]])

    def _run(self) -> None:
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                if not np.allclose(self._embed(), self._expected, atol=1e-5):
                    self.faults.append("another vector")
            except (AssertionError, httpx.HTTPError) as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.monotonic() - started_s)
            self._stopping.wait(INTERVAL_S)
