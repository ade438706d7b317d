"""A well-behaved client beside an attack: it sends the same request at fixed times, and checks every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

INTERVAL_S = 0.1
TIMEOUT_S = 60.0
MAX_IN_FLIGHT = 64
MIN_REQUESTS = 5
MAX_DIFFERENCE = 1e-5

ADDRESS = "127.0.0.2"
"""Another address than that of clients on loopback which choose none, so that it has a share of its own."""


class Canary:
    """Sends a request every tenth of a second for as long as the block lasts, however long the answers take.

    Args:
        url: URL of the service.
        body: Of the request, which is sent once at this moment: its vectors are the right ones.

    Attributes:
        seconds: How long each response took.
        wrong: Number of responses with another vector than the first one.
        faults: What was wrong with each request that got none.

    Raises:
        OSError: The first request fails.
    """

    def __init__(self, url: str, body: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._body = json.dumps(body).encode()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send_regularly, daemon=True)
        self.seconds: list[float] = []
        self.wrong = 0
        self.faults: list[str] = []
        self._expected = self.embed()

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait for what has been sent."""
        self._stopping.set()
        self._thread.join()

    @property
    def p99_s(self) -> float:
        """Seconds within which 99 of 100 responses came."""
        return float(np.percentile(self.seconds, 99))

    def embed(self) -> np.ndarray[Any, Any]:
        """Return the vectors of one request.

        Raises:
            OSError: It is refused, fails, or takes too long.
        """
        connection = http.client.HTTPConnection(self._host, self._port, TIMEOUT_S, (ADDRESS, 0))
        try:
            connection.request("POST", "/v1/embeddings", self._body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"the response is broken: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"{response.status} {content[:200].decode(errors='replace')}")
        return np.array([item["embedding"] for item in json.loads(content)["data"]])

    def _send_regularly(self) -> None:
        next_s = time.monotonic()
        with ThreadPoolExecutor(MAX_IN_FLIGHT) as clients:
            sent = 0
            while not self._stopping.wait(max(0.0, next_s - time.monotonic())) or sent < MIN_REQUESTS:
                clients.submit(self._send, next_s)
                sent += 1
                next_s += INTERVAL_S

    def _send(self, due_s: float) -> None:
        try:
            self.wrong += not np.allclose(self.embed(), self._expected, atol=MAX_DIFFERENCE)
        except (OSError, ValueError, KeyError) as error:  # also a response that is no JSON, or has no vectors
            self.faults.append(str(error))
        self.seconds.append(time.monotonic() - due_s)
