"""Which processes the watchdog takes for stopped, hung or merely busy."""

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil
import pytest

from launcher.probes import WHOLE
from launcher.processes import ChildProcess
from launcher.watchdog import IDLE_LOOKS, SETTLING_LOOKS, STOPPED_LOOKS, Watchdog
from tests.service import wait_until

SLEEP = "import time; time.sleep(60)"
SPIN = "while True: pass"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).wait()"


class SilentProbe:
    """Of a process that does not respond."""

    def __init__(self) -> None:
        self.progress = 0
        self.is_advancing = False
        self.silent: Collection[str] = (WHOLE,)

    def find_silent(self) -> Collection[str]:
        return self.silent

    def count_progress(self, name: str) -> int:
        self.progress += self.is_advancing
        return self.progress

    def works_for(self, process: psutil.Process, name: str) -> bool:
        return True

    def reset(self) -> None: ...


@pytest.fixture
def probe() -> SilentProbe:
    return SilentProbe()


@pytest.fixture
def children() -> Iterator[list[ChildProcess]]:
    started: list[ChildProcess] = []
    yield started
    for child in started:
        child.kill()


def start(code: str, children: list[ChildProcess], folder: Path) -> ChildProcess:
    child = ChildProcess("child", [sys.executable, "-c", code], os.environ, folder / "log")
    children.append(child)
    wait_until(lambda: psutil.Process(child.pid).cmdline()[1:] == ["-c", code], 10)
    time.sleep(0.5)  # until the interpreter has started
    return child


def watch(child: ChildProcess, probe: SilentProbe, is_part: bool = False, max_silence_s: float = 60) -> Watchdog:
    watchdog = Watchdog(child, probe, lambda process: is_part, max_silence_s)
    watchdog.count_parts()
    return watchdog


def look(watchdog: Watchdog, times: int) -> list[str | None]:
    """Look at the process some times, and return what was found each time."""
    found = []
    for _ in range(times):
        found.append(watchdog.find_broken() or watchdog.find_hang())
        time.sleep(0.1)
    return found


def test_a_silent_process_that_is_idle_hangs(children: list[ChildProcess], tmp_path: Path, probe: SilentProbe) -> None:
    watchdog = watch(start(SLEEP, children, tmp_path), probe)
    found = look(watchdog, 1 + IDLE_LOOKS)
    assert found == [None] * IDLE_LOOKS + ["does not respond and does not work"]


def test_a_silent_process_that_computes_is_busy(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    watchdog = watch(start(SPIN, children, tmp_path), probe)
    assert not any(look(watchdog, 3 * IDLE_LOOKS))


def test_a_silent_process_whose_counters_advance_is_busy(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    probe.is_advancing = True
    assert not any(look(watch(start(SLEEP, children, tmp_path), probe), 3 * IDLE_LOOKS))


def test_a_busy_process_that_stays_silent_for_too_long_hangs(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    watchdog = watch(start(SPIN, children, tmp_path), probe, max_silence_s=0.3)
    wait_until(lambda: watchdog.find_hang() == "does not respond for 0 s", 10)


def test_a_response_in_between_starts_the_count_anew(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    watchdog = watch(start(SLEEP, children, tmp_path), probe)
    for _ in range(3):
        assert not any(look(watchdog, IDLE_LOOKS))
        probe.silent = ()
        assert watchdog.find_hang() is None
        probe.silent = (WHOLE,)


def test_what_hangs_is_named(children: list[ChildProcess], tmp_path: Path, probe: SilentProbe) -> None:
    probe.silent = ("some_text",)
    watchdog = watch(start(SLEEP, children, tmp_path), probe)
    assert look(watchdog, 1 + IDLE_LOOKS)[-1] == "does not respond (some_text) and does not work"


def test_a_stopped_process_is_broken_after_some_looks(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    probe.silent = ()
    child = start(SLEEP, children, tmp_path)
    watchdog = watch(child, probe)
    psutil.Process(child.pid).send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, 5)
    assert look(watchdog, STOPPED_LOOKS) == [None] * (STOPPED_LOOKS - 1) + ["has a stopped process"]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_or_stopped_part_is_a_fault(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe, fault: signal.Signals
) -> None:
    probe.silent = ()
    child = start(PARENT, children, tmp_path)
    wait_until(lambda: len(child.descendants()) == 1, 10)
    watchdog = watch(child, probe, is_part=True)
    child.descendants()[0].send_signal(fault)
    wait_until(lambda: watchdog.find_broken() is not None, 10)


def test_a_stopped_process_that_is_replaced_is_killed_and_is_no_fault(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    probe.silent = ()
    child = start(PARENT, children, tmp_path)
    wait_until(lambda: len(child.descendants()) == 1, 10)
    [grandchild] = child.descendants()
    watchdog = watch(child, probe)
    grandchild.send_signal(signal.SIGSTOP)
    wait_until(lambda: watchdog.find_broken() is not None or not grandchild.is_running(), 10)
    assert child.exit_code in (None, 0)


def test_a_dead_process_is_a_fault(children: list[ChildProcess], tmp_path: Path, probe: SilentProbe) -> None:
    child = start(SLEEP, children, tmp_path)
    watchdog = watch(child, probe)
    psutil.Process(child.pid).kill()
    wait_until(lambda: watchdog.find_broken() == "exited with code -9", 10)


SPAWN_TWO = f"""
import subprocess, sys, time
for _ in range(2):
    subprocess.Popen([sys.executable, '-c', {SLEEP!r}])
time.sleep(60)
"""


def test_parts_that_end_after_a_change_of_the_models_are_no_fault_and_later_ones_are(
    children: list[ChildProcess], tmp_path: Path, probe: SilentProbe
) -> None:
    probe.silent = ()
    child = start(SPAWN_TWO, children, tmp_path)
    wait_until(lambda: len(child.descendants()) == 2, 10)
    first, second = child.descendants()
    watchdog = watch(child, probe, is_part=True)
    watchdog.ignore_parts()
    first.kill()
    assert look(watchdog, 2) == [None, None]
    watchdog.settle_parts()
    assert look(watchdog, int(SETTLING_LOOKS)) == [None] * int(SETTLING_LOOKS)
    second.kill()
    wait_until(lambda: watchdog.find_broken() == "has lost one of its processes", 10)
