"""Finds processes that run but do not work: stopped ones, and hung ones, which it tells from busy ones."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from launcher.probes import Probe
from launcher.processes import DEAD, STOPPED, ChildProcess, has_waiting_thread, read_cpu_s, read_name, read_status

log = logging.getLogger(__name__)

STOPPED_LOOKS = 3
"""Consecutive looks, one each second, at which a process has to be stopped (SIGSTOP) to be replaced."""

SETTLING_LOOKS = 10.0
"""Looks after a change of the models, during which the processes of those that were unloaded end."""

IDLE_LOOKS = 3
"""Consecutive looks at which a silent process has to be idle to count as hung."""

BUSY_SHARE = 0.1
"""Share of a core above which silent processes count as busy."""

IsPart = Callable[[psutil.Process], bool]


def is_stub(process: psutil.Process) -> bool:
    """Return whether a descendant of Triton is a Python stub, which Triton does not replace.

    Image decoders are none: their pool replaces them.
    """
    return read_name(process) == "triton_python_b"


@dataclass
class Silence:
    """What is known about something that does not respond.

    Attributes:
        since_s: When it was first seen, on the clock of `time.monotonic`.
        looked_s: When it was last seen.
        cpu_s: Processor time that its processes had used then, in seconds.
        progress: The highest count of its progress.
        idle_looks: Consecutive looks at which nothing advanced.
    """

    since_s: float
    looked_s: float
    cpu_s: float
    progress: int
    idle_looks: int = 0


class Watchdog:
    """Looks at one process and its descendants about once a second.

    What does not respond is hung if neither its counters nor its processor time advance. If they do, or a thread waits
    for a processor or a disk, it is busy: long batches can delay a response by many seconds. Only much later does that
    count as a hang as well.

    Args:
        process: Process to look at.
        probe: Questions to it.
        is_part: Tells descendants without which it cannot work from those that it replaces by itself.
        max_silence_s: Time without a response after which a busy process counts as hung, in seconds.
    """

    def __init__(self, process: ChildProcess, probe: Probe, is_part: IsPart, max_silence_s: float) -> None:
        self._process = process
        self._probe = probe
        self._is_part = is_part
        self._max_silence_s = max_silence_s
        self._parts = 0
        self._settling_looks = 0.0
        self._stopped_looks: dict[int, int] = {}
        self._silences: dict[str, Silence] = {}

    def count_parts(self) -> None:
        """Remember how many parts the process has, now that it responds."""
        self._parts = sum(self._is_part(process) for process in self._process.descendants())
        self._settling_looks = 0.0

    def ignore_parts(self) -> None:
        """Take no missing part for a fault, until `settle_parts` is called."""
        self._settling_looks = math.inf

    def settle_parts(self) -> None:
        """Count the parts again over the next looks: those that are no longer needed are about to end."""
        self._settling_looks = SETTLING_LOOKS

    def find_broken(self) -> str | None:
        """Return which process has ended or stays stopped, as the end of a sentence; None if none does.

        Stopped processes that are replaced are killed.
        """
        if self._process.exit_code is not None:
            return f"exited with code {self._process.exit_code}"
        family = self._family()
        parts = sum(map(self._is_part, family[1:]))
        if self._settling_looks:
            self._settling_looks -= 1
            self._parts = parts
        elif parts < self._parts:
            return "has lost one of its processes"
        stopped = {process.pid: process for process in family if read_status(process) in STOPPED}
        self._stopped_looks = {pid: self._stopped_looks.get(pid, 0) + 1 for pid in stopped}
        for pid, process in stopped.items():
            if self._stopped_looks[pid] < STOPPED_LOOKS:
                continue
            if pid == self._process.pid or self._is_part(process):
                return "has a stopped process"
            log.warning("killing process %d of %s, which is stopped: it will be replaced", pid, self._process.name)
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return None

    def find_hang(self) -> str | None:
        """Return what hangs, as the end of a sentence; None if nothing does."""
        if self._stopped_looks:  # there is no point in waiting for what `find_broken` will soon report
            return None
        silent = self._probe.find_silent()
        self._silences = {name: silence for name, silence in self._silences.items() if name in silent}
        family = self._family() if silent else []
        for name in silent:
            workers = [process for process in family if self._probe.works_for(process, name)]
            idle_looks = self._look_at(name, workers)
            subject = f"does not respond ({name})" if name else "does not respond"
            if idle_looks >= IDLE_LOOKS:
                return f"{subject} and does not work"
            if time.monotonic() - self._silences[name].since_s > self._max_silence_s:
                return f"{subject} for {self._max_silence_s:.0f} s"
        return None

    def _look_at(self, name: str, workers: list[psutil.Process]) -> int:
        """Return at how many consecutive looks something silent has been idle."""
        now_s, cpu_s, progress = time.monotonic(), read_cpu_s(workers), self._probe.count_progress(name)
        last = self._silences.get(name)
        if last is None:
            self._silences[name] = Silence(now_s, now_s, cpu_s, progress)
            return 0
        is_busy = (
            progress > last.progress
            or cpu_s - last.cpu_s > BUSY_SHARE * (now_s - last.looked_s)
            or any(map(has_waiting_thread, workers))
        )
        idle_looks = 0 if is_busy else last.idle_looks + 1
        self._silences[name] = Silence(last.since_s, now_s, cpu_s, max(progress, last.progress), idle_looks)
        return idle_looks

    def _family(self) -> list[psutil.Process]:
        """Return the process and its descendants, but dead ones; the process comes first."""
        try:
            main = psutil.Process(self._process.pid)
        except psutil.NoSuchProcess:
            return []
        return [main, *(child for child in self._process.descendants() if read_status(child) not in DEAD)]
