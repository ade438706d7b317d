"""A thread for requests that take long, so that others overtake them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

NICENESS = 5
"""Under load a thread of this niceness gets about a third of the processor time of the others."""


MAX_INLINE_BYTES = 65_536
"""Texts of a batch up to this size are tokenised together, which takes about 50 ms at most."""


class Lane:
    """Runs tasks one at a time at low priority, in order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slow-lane", initializer=lower_priority)

    def start(self, task: Callable[[], None]) -> None:
        """Run a task, which must not raise, after those started before. Return its memory to the system after it."""
        self._thread.submit(run_and_trim, task)

    def close(self) -> None:
        """Wait until all tasks are done."""
        self._thread.shutdown()


def find_large(sizes_bytes: Sequence[int]) -> list[int]:
    """Return which requests of a batch the others should not wait for, smallest first.

    Args:
        sizes_bytes: Of the texts of each request.
    """
    if sum(sizes_bytes) <= MAX_INLINE_BYTES:
        return []
    order = sorted(range(len(sizes_bytes)), key=sizes_bytes.__getitem__)
    totals = accumulate(sizes_bytes[index] for index in order)
    return [index for index, total_bytes in zip(order, totals, strict=True) if total_bytes > MAX_INLINE_BYTES]


def run_and_trim(task: Callable[[], None]) -> None:
    """Run a task, then return free memory to the system, which glibc would keep."""
    task()
    ctypes.CDLL(None).malloc_trim(0)


def lower_priority() -> None:
    """Lower the priority of the calling thread."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
