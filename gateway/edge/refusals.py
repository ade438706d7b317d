"""Refusals of a moment ago: a flood of small requests is refused before each one becomes a task and is parsed.

Refusing a request takes a third of the time that serving it takes. So a client that sends ten times what it can be
served takes the processor away from those who are served, unless refusals cost next to nothing.
"""

import asyncio
import time
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.api.context import Refusal
from gateway.api.error_responses import render_error, spread_retry
from gateway.core.admission import MIN_PATIENCE_S
from gateway.core.metrics import Metrics
from gateway.edge.headers import Headers, Key, identify
from gateway.settings import Settings

MEMORY_SHARE = 0.1
"""A refusal holds for the same client's next requests until about this share of the queue has been served: within less
than the second after which it tells the client to come again."""

WINDOW_S = 0.005
"""Time in which a request that was let through surely has been admitted or refused."""

MAX_CLIENTS = 4096

FILE_MARKS = (b"data:", b"http")
"""One of which is in every body with an image: images wait in queues of their own."""


@dataclass(slots=True)
class RecentRefusal:
    """What was refused.

    Attributes:
        refusal: What the application told.
        model_mark: The model as the body names it; nothing if it names none.
        min_bytes: Length of the body: a shorter one may ask for less.
        until_s: When it no longer holds, on the clock of `time.monotonic`.
        status: Of the response.
        head: Of the response, up to the value of `Retry-After`.
        body: Of the response.
    """

    refusal: Refusal
    model_mark: bytes
    min_bytes: int
    until_s: float
    status: int
    head: bytes
    body: bytes
    _window: int = 1
    _passed: int = 0

    def hold(self, until_s: float) -> None:
        """Hold until a moment, and let through only one request after it."""
        self.until_s, self._window, self._passed = until_s, 1, 0

    def try_passing(self) -> bool:
        """Let a request through to see whether there is room again, then two, four and so on; return whether it may.

        As many may be ready as arrived while the event loop was busy: if all of them went through, that would make it
        busy for as long again.
        """
        if self._passed == self._window:
            return False
        if not self._passed:
            asyncio.get_running_loop().call_later(WINDOW_S, self._widen)
        self._passed += 1
        return True

    def _widen(self) -> None:
        if self._passed:
            self._window, self._passed = 2 * self._window, 0

    def holds_for(self, body: bytes) -> bool:
        """Return whether the application would refuse a request too, if that came from the same client."""
        names_model = self.model_mark in body if self.model_mark else b'"model"' not in body
        if not names_model or len(body) < self.min_bytes:
            return False
        lowered = body.lower()
        return not any(mark in lowered for mark in FILE_MARKS)

    def render(self, request_id: str, ending: bytes) -> bytes:
        """Return the response.

        Args:
            request_id: For its header.
            ending: Further headers, each with its line end.
        """
        error = self.refusal.error
        retry_after = spread_retry(error.retry_after_s or 0, error.max_retry_after_s)
        return b"%s%d\r\nx-request-id: %s\r\n%s\r\n%s" % (
            self.head,
            retry_after,
            request_id.encode(),
            ending,
            self.body,
        )


class RecentRefusals:
    """The refusals of the last moments, by client and route.

    Args:
        settings: For how long requests wait.
        metrics: Where what is refused here is counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        longest_s = min(MIN_PATIENCE_S, settings.max_queue_s, settings.request_timeout_s)
        self._memory_s = MEMORY_SHARE * longest_s
        self._metrics = metrics
        self._refusals: dict[Key, RecentRefusal] = {}

    def note(self, key: Key, refusal: Refusal, body_bytes: int) -> None:
        """Remember that the application has refused a request.

        Args:
            key: Of the client and route, from `identify`.
            refusal: What the application told.
            body_bytes: Length of the request's body.
        """
        now_s = time.monotonic()
        known = self._refusals.get(key)
        model_mark = b'"%s"' % refusal.model.encode() if refusal.model else b""
        if known and known.model_mark == model_mark:
            known.min_bytes = min(known.min_bytes, body_bytes) if known.until_s > now_s else body_bytes
            known.hold(now_s + self._memory_s)
            return
        if len(self._refusals) >= MAX_CLIENTS:
            self._refusals.clear()
        response = render_error(refusal.error, refusal.dialect)
        lines = [b"%s: %s\r\n" % line for line in response.raw_headers if line[0] != b"retry-after"]
        head = STATUS_LINE[response.status_code] + b"".join(lines) + b"retry-after: "
        self._refusals[key] = RecentRefusal(
            refusal, model_mark, body_bytes, now_s + self._memory_s, response.status_code, head, bytes(response.body)
        )

    def find(self, address: str, url: bytes, headers: Headers) -> RecentRefusal | None:
        """Return what was refused to the client of a request on its route a moment ago, or None."""
        if not self._refusals:
            return None
        key = identify(address, url, headers)
        if key is None:
            return None
        recent = self._refusals.get(key)
        if recent is None:
            return None
        late_s = time.monotonic() - recent.until_s
        if late_s < 0:
            return recent
        if late_s > self._memory_s:
            del self._refusals[key]
            return None
        return None if recent.try_passing() else recent

    def count(self, recent: RecentRefusal) -> None:
        """Count a request that was refused here."""
        refusal = recent.refusal
        self._metrics.count_request(refusal.route, refusal.dialect.name, "", recent.status, 0.0)
