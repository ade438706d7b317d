"""Lanes: a bounded number of threads that run tasks in parallel, with large tasks at low priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

LOW_PRIORITY_NICENESS = 5
"""Under load a thread of this niceness gets about a third of the processor time of the others."""


def lower_priority() -> None:
    """Lower the priority of the calling thread and of the threads that it starts from now on."""
    thread = threading.get_native_id()
    niceness = max(LOW_PRIORITY_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
    os.setpriority(os.PRIO_PROCESS, thread, niceness)


class Lanes:
    """Threads that run one task each: one set for small tasks, another for large ones.

    A small task is started by one thread, which waits while all small lanes are busy. Large tasks run at low priority
    and queue separately, so that small tasks overtake them.

    Args:
        count: Number of lanes in each set.
    """

    def __init__(self, count: int) -> None:
        self._small = ThreadPoolExecutor(count, thread_name_prefix="lane")
        self._large = ThreadPoolExecutor(count, thread_name_prefix="slow-lane", initializer=lower_priority)
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._running = 0

    @property
    def are_all_free(self) -> bool:
        """Whether no task is running."""
        return self._running == 0

    def start(self, task: Callable[[bool], None], *, is_large: bool = False) -> None:
        """Start a task in a lane. For a small task, wait until a lane is free.

        Args:
            task: Called with whether no other task is running when it begins. It must not raise.
            is_large: Whether small tasks may overtake it.
        """
        if is_large:
            self._large.submit(self._run, task)
        else:
            self._free.acquire()
            self._small.submit(self._run_small, task)

    def wait_for_free(self) -> None:
        """Wait until a small task would start immediately."""
        with self._free:
            pass

    def close(self) -> None:
        """Wait until all tasks are done."""
        self._small.shutdown()
        self._large.shutdown()

    def _run_small(self, task: Callable[[bool], None]) -> None:
        try:
            self._run(task)
        finally:
            self._free.release()

    def _run(self, task: Callable[[bool], None]) -> None:
        with self._lock:
            self._running += 1
            is_alone = self._running == 1
        try:
            task(is_alone)
        finally:
            with self._lock:
                self._running -= 1
