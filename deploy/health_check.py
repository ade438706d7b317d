"""Docker's health check of Triton: its metrics respond, and neither it nor a Python process of it is dead or stopped.

Triton does not restart a dead Python process: it still reports itself ready, but every request fails. Docker restarts
containers that exit, not unhealthy ones, so this check kills such a Triton. It needs only the standard library.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

METRICS_PORT = 8002
TIMEOUT_S = 3.0
STUB = "triton_python_b"
"""Name of a stub's process, as truncated by the kernel."""
SERVER = "tritonserver"
STOPPED_STATES = "Tt"
BROKEN_STATES = f"ZX{STOPPED_STATES}"
"""Zombie, dead, stopped, traced (proc(5))."""


def main(metrics_port: int = METRICS_PORT, proc: Path = Path("/proc")) -> int:
    """Return 0 if Triton can serve, and kill it if it cannot recover.

    Args:
        metrics_port: Port of Triton's metrics, which respond once all models are loaded.
        proc: Folder of the kernel's process information; every Triton in it is checked.
    """
    stopped = set(find_stopped_servers(proc))
    if not stopped and not serves_metrics(metrics_port):
        return 1
    broken = sorted(stopped | set(find_broken_servers(proc)))
    for server in broken:
        sys.stdout.write(f"Triton, process {server}, is stopped or has lost a Python process: killing it\n")
        os.kill(server, signal.SIGKILL)
    return 1 if broken else 0


def serves_metrics(metrics_port: int) -> bool:
    """Return whether the metrics respond; proxies named by the environment are not used."""
    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_broken_servers(proc: Path) -> Iterator[int]:
    """Yield the parent of each Python stub that no longer runs."""
    for _, name, state, parent in read_processes(proc):
        if name == STUB and state in BROKEN_STATES:
            yield parent


def find_stopped_servers(proc: Path) -> Iterator[int]:
    """Yield each Triton that is stopped."""
    for pid, name, state, _ in read_processes(proc):
        if name == SERVER and state in STOPPED_STATES:
            yield pid


def read_processes(proc: Path) -> Iterator[tuple[int, str, str, int]]:
    """Yield the id, name, state and parent of each process."""
    for path in proc.glob("[0-9]*/stat"):
        try:
            stat = path.read_text(errors="replace")
        except OSError:  # the process has ended in the meantime
            continue
        fields = re.fullmatch(r"(\d+) \((.*)\) (\S) (\d+) .*", stat.strip(), re.DOTALL)
        if fields:
            yield int(fields[1]), fields[2], fields[3], int(fields[4])


if __name__ == "__main__":
    sys.exit(main())
