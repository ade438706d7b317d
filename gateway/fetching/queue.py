"""How many pictures are fetched at once, of one host and altogether, and how many may wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from gateway.errors import OverloadedError


class FetchQueue:
    """Slots for fetches, given out in order of arrival."""

    def __init__(self, *, concurrency: int, host_concurrency: int, capacity: int) -> None:
        """Begins empty.

        Args:
            concurrency: fetches at once.
            host_concurrency: of these, from one host.
            capacity: fetches at once and waiting.
        """
        self._slots = asyncio.Semaphore(concurrency)
        self._host_concurrency = host_concurrency
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._capacity = capacity
        self._inside = 0

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Waits for a slot and holds it.

        Args:
            host: from which is fetched.

        Raises:
            OverloadedError: too many wait already.
        """
        if self._inside >= self._capacity:
            raise OverloadedError("too many image URLs are being fetched", retry_after_s=1.0)
        self._inside += 1
        # Kept as long as anybody holds or awaits it.
        host_slots = self._host_slots.setdefault(host, asyncio.Semaphore(self._host_concurrency))
        try:
            # The host's own slot first: whoever waits for a slow host takes nothing from the others.
            async with host_slots, self._slots:
                yield
        finally:
            self._inside -= 1
