"""Admission control: how much work is in flight at a time, by cost, first come first served, with a bounded queue.

Without it a burst would queue in Triton, where a full queue can hang an ensemble, and every response would be late.
Requests with images have gates of their own, so that texts do not queue behind pages, nor small images behind large
ones.
"""

import asyncio
from collections import deque

from gateway.engine import Slot
from gateway.errors import OverloadedError
from gateway.settings import Settings

RETRY_AFTER_S = 2.0

LARGE_SHARE = 8
"""A request with images is large if it costs more than this fraction of what may be in flight."""


class Admission:
    """The gates of one worker process: for texts, for requests with images, and for those whose images take long."""

    def __init__(self, settings: Settings) -> None:
        image_limits = (settings.max_image_tokens_in_flight, settings.max_image_tokens_queued)
        self.text = AdmissionGate(settings.max_text_tokens_in_flight, settings.max_text_tokens_queued)
        self.image = AdmissionGate(*image_limits)
        self.large_image = AdmissionGate(*image_limits)
        self._max_cost = settings.max_image_tokens_in_flight // LARGE_SHARE

    def image_gate_of(self, cost: int, is_slow: bool) -> "AdmissionGate":
        """Return the gate of a request with images or PDFs.

        Args:
            cost: Estimated tokens.
            is_slow: Whether one of its files takes long to decode.
        """
        return self.large_image if is_slow or cost > self._max_cost else self.image

    def check_room(self) -> None:
        """Refuse any request, before it is read, while all queues are full.

        Raises:
            OverloadedError: All are full.
        """
        if self.text.is_full() and self.image.is_full():
            self.large_image.check_room()


class AdmissionGate:
    """Admits requests while the cost of those in flight stays below a limit.

    Args:
        max_in_flight: Total cost in flight; a single request may cost more.
        max_queued: Total cost of waiting requests.
    """

    def __init__(self, max_in_flight: int, max_queued: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_queued = max_queued
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.in_flight = 0
        self.queued = 0

    def check_room(self, cost: int = 0) -> None:
        """Refuse work that would only wait too long.

        Args:
            cost: Of the request, if it is known.

        Raises:
            OverloadedError: The queue has no room for it.
        """
        if self.is_full(cost):
            raise OverloadedError("too many requests are waiting", retry_after_s=RETRY_AFTER_S)

    def is_full(self, cost: int = 0) -> bool:
        """Return whether the queue lacks room for that much; an empty queue takes a request of any size."""
        return bool(self._queue) and self.queued + max(cost, 1) > self._max_queued

    async def enter(self, cost: int) -> Slot:
        """Wait for admission, for as long as the caller is not cancelled.

        Args:
            cost: Estimated tokens.

        Returns:
            The slot, for the caller to release.

        Raises:
            OverloadedError: The queue has no room for it.
        """
        if self._queue or not self._fits(cost):
            await self._wait(cost)
        else:
            self.in_flight += cost
        return Slot(lambda: self._leave(cost))

    def _leave(self, cost: int) -> None:
        self.in_flight -= cost
        self._admit_queued()

    def _fits(self, cost: int) -> bool:
        return self.in_flight == 0 or self.in_flight + cost <= self._max_in_flight

    async def _wait(self, cost: int) -> None:
        """Queue until `_admit_queued` admits the request."""
        self.check_room(cost)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (cost, turn)
        self._queue.append(entry)
        self.queued += cost
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # admitted in the very moment of the cancellation
                self.in_flight -= cost
            elif entry in self._queue:
                self._queue.remove(entry)
                self.queued -= cost
            self._admit_queued()
            raise

    def _admit_queued(self) -> None:
        """Admit requests from the head of the queue while they fit, dropping cancelled ones."""
        while self._queue:
            cost, turn = self._queue[0]
            if not turn.cancelled() and not self._fits(cost):
                break
            self._queue.popleft()
            self.queued -= cost
            if not turn.cancelled():
                self.in_flight += cost
                turn.set_result(None)
