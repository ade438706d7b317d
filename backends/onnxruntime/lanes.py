"""Work side by side, a bounded number at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Lanes:
    """Threads that each carry one piece of work at a time, handed over by one thread that waits while all are taken."""

    def __init__(self, count: int) -> None:
        """Start with all of them free.

        Args:
            count: How many.
        """
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="lane")
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def are_all_free(self) -> bool:
        """Whether no work is under way; stays so until the next is started."""
        return self._taken == 0

    def start(self, work: Callable[[bool], None]) -> None:
        """Do some work in a lane, once one is free.

        Args:
            work: Must not raise; is told whether it has the lanes to itself as it begins.
        """
        self._free.acquire()
        with self._lock:
            self._taken += 1
            is_alone = self._taken == 1
        self._threads.submit(self._do, work, is_alone)

    def wait_for_free(self) -> None:
        """Return once the next work would start at once."""
        with self._free:
            pass

    def close(self) -> None:
        """Wait until all work is done."""
        self._threads.shutdown()

    def _do(self, work: Callable[[bool], None], is_alone: bool) -> None:
        try:
            work(is_alone)
        finally:
            with self._lock:
                self._taken -= 1
            self._free.release()
