"""Processor time of a server's processes, by what each of them does."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping

import psutil

libc = ctypes.CDLL(None)

Label = Callable[[psutil.Process], str]
"""Names what a process does; processes of one name are summed up."""


def processor_seconds(root_pid: int, label: Label) -> dict[str, float]:
    """Return the processor time used so far by a process and all it has started, user and system together.

    Args:
        root_pid: The process that has started the others.
        label: Names each of them.
    """
    root = psutil.Process(root_pid)
    seconds: dict[str, float] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            used = read_clock(process.pid)
            name = label(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
        seconds[name] = seconds.get(name, 0.0) + used
    return seconds


def read_clock(pid: int) -> float:
    """Return the seconds of processor time of a process, to the nanosecond; `/proc` has hundredths of a second.

    Raises:
        ProcessLookupError: There is none of that id.
    """
    clock = ctypes.c_int()
    if libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(pid)
    try:
        return time.clock_gettime(clock.value)
    except OSError as error:  # it has just ended
        raise ProcessLookupError(pid) from error


def microseconds_per_item(before: Mapping[str, float], after: Mapping[str, float], items: int) -> dict[str, float]:
    """Return what each process spent on an item between two readings."""
    return {name: (after[name] - before.get(name, 0.0)) / items * 1e6 for name in after}
