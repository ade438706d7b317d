"""Child processes that cannot outlive this one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # prctl(2)
LOG_TAIL_LINES = 15
libc = ctypes.CDLL(None, use_errno=True)


class ChildProcess:
    """A process with a log file, in a process group of its own, that is told to stop when this process dies."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> None:
        """Start it.

        Args:
            name: What to call it before people.
            command: Program and arguments.
            environment: Its whole environment.
            log_path: File for its output, appended to.
        """
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def tie_to_parent() -> None:
            # A Ctrl-C in the terminal reaches the launcher alone. Not a session: Linux shares out processor time among
            # sessions first, and the niceness of image decoders would not count against the gateway's.
            os.setpgid(0, 0)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=tie_to_parent,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> None:
        """Ask it to stop; after `grace_s` seconds kill it, and every process it has started."""
        family = self._family()
        if self.exit_code is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for process in psutil.wait_procs(family, timeout=1)[1]:
            process.kill()

    def count_healthy_children(self) -> int:
        """Count the processes it has started that are neither dead nor stopped."""
        broken = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD, psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return sum(1 for process in self._family() if _status(process) not in broken)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
