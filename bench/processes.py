"""Processor time of a server's processes, by what each of them does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import psutil

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
            times = process.cpu_times()
            name = label(process)
        except psutil.NoSuchProcess:
            continue
        seconds[name] = seconds.get(name, 0.0) + times.user + times.system
    return seconds


def microseconds_per_item(before: Mapping[str, float], after: Mapping[str, float], items: int) -> dict[str, float]:
    """Return what each process spent on an item between two readings."""
    return {name: (after[name] - before.get(name, 0.0)) / items * 1e6 for name in after}
