"""Work side by side, a bounded number at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from priority import lower_priority


class Lanes:
    """Threads that each carry one piece of work at a time: some for small work, others for large.

    Small work is handed over by one thread that waits while all of its lanes are taken. Large work, at low priority,
    queues by itself, so that small work passes it.
    """

    def __init__(self, count: int) -> None:
        """Start with all of them free.

        Args:
            count: How many of each kind.
        """
        self._small = ThreadPoolExecutor(count, thread_name_prefix="lane")
        self._large = ThreadPoolExecutor(count, thread_name_prefix="slow-lane", initializer=lower_priority)
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._running = 0

    @property
    def are_all_free(self) -> bool:
        """Whether no work is under way."""
        return self._running == 0

    def start(self, work: Callable[[bool], None], *, is_large: bool = False) -> None:
        """Do some work in a lane: small work once one is free, which this waits for.

        Args:
            work: Must not raise; is told whether it has the lanes to itself as it begins.
            is_large: Whether other work may pass it.
        """
        if is_large:
            self._large.submit(self._do, work)
        else:
            self._free.acquire()
            self._small.submit(self._do_small, work)

    def wait_for_free(self) -> None:
        """Return once the next small work would start at once."""
        with self._free:
            pass

    def close(self) -> None:
        """Wait until all work is done."""
        self._small.shutdown()
        self._large.shutdown()

    def _do_small(self, work: Callable[[bool], None]) -> None:
        try:
            self._do(work)
        finally:
            self._free.release()

    def _do(self, work: Callable[[bool], None]) -> None:
        with self._lock:
            self._running += 1
            is_alone = self._running == 1
        try:
            work(is_alone)
        finally:
            with self._lock:
                self._running -= 1
