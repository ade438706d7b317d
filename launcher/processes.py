"""Child processes that do not outlive this one."""

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
        parent = os.getpid()

        def tie_to_parent() -> None:
            # In its own group it gets no Ctrl-C from the terminal. In its own session it would not yield processor time
            # to the gateway: Linux divides it between sessions before it considers niceness.
            os.setpgid(0, 0)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent died before the line above
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
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> None:
        """Terminate the process, kill it after `grace_s` seconds, then kill the processes it has started."""
        descendants = self._descendants()
        if self.exit_code is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for process in psutil.wait_procs(descendants, timeout=1)[1]:
            process.kill()

    def count_healthy_children(self) -> int:
        """Count the descendants that are neither dead nor stopped."""
        broken = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD, psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return sum(1 for process in self._descendants() if _status(process) not in broken)

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
