"""Child processes that do not outlive this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from launcher.logs import read_tail

RUN_TIED = Path(__file__).with_name("run_tied.py")
DEAD = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
STOPPED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP})


def child_environment() -> dict[str, str]:
    """Return this process's environment, with ONNX Runtime's telemetry off."""
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}


class ChildProcess:
    """A process with a log file, in its own process group, that gets SIGTERM when this process dies.

    Args:
        name: Name of the process in messages to the user.
        command: Program and arguments.
        environment: Environment of the process; nothing is inherited.
        log_path: File to which its output is appended.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            # In its own group it gets no Ctrl-C from the terminal. In its own session it would not yield processor time
            # to the gateway: Linux divides it between sessions before it considers niceness.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(RUN_TIED), str(os.getpid()), *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> None:
        """Terminate the process, kill it after `grace_s` seconds, then kill the processes it has started."""
        descendants = self.descendants()
        if self.exit_code is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _kill(psutil.wait_procs(descendants, timeout=1)[1])

    def kill(self) -> None:
        """Kill the process and those it has started, which may be unable to handle another signal."""
        descendants = self.descendants()
        self._process.kill()
        self._process.wait()
        _kill(descendants)
        psutil.wait_procs(descendants, timeout=1)

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that it has started, and those that they have."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return read_tail(self.log_path)


def kill_programs_of(folder: Path) -> int:
    """Kill every process that runs a program below a folder, and return their number.

    A stub whose Triton was killed under load may wait for it for ever, and is nobody's descendant then.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            program = process.cmdline()[:1]
            if program and Path(program[0]).is_relative_to(folder):
                found.append(process)
    _kill(found)
    psutil.wait_procs(found, timeout=1)
    return len(found)


def read_status(process: psutil.Process) -> str:
    """Return the status of a process; `psutil.STATUS_DEAD` if there is none any more."""
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def read_name(process: psutil.Process) -> str:
    """Return the first 15 characters of a process's name; empty if there is none any more."""
    try:
        return process.name()[:15]  # all that the kernel keeps of a dead one's
    except psutil.NoSuchProcess:
        return ""


def read_cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Return the processor time that processes have used so far, in seconds."""
    used_s = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used_s += times.user + times.system
    return used_s


def has_waiting_thread(process: psutil.Process) -> bool:
    """Return whether a thread of the process runs, or waits for a processor or a disk, at this moment."""
    for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            if path.read_text(errors="replace").rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
