"""Docker's health check of Triton: its metrics answer, and none of the Python processes it needs is dead or stopped.

Triton never starts a dead Python process again, calls itself ready, and fails every request; Docker restarts containers
that end, not unhealthy ones. So this check ends such a Triton. Only the standard library is imported.
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
"""A stub's process name, as the kernel cuts it."""
BROKEN_STATES = "ZXTt"
"""Zombie, dead, stopped, traced (proc(5))."""


def main(metrics_port: int = METRICS_PORT, proc: Path = Path("/proc")) -> int:
    """Return 0 if Triton can serve; end it if it never will again.

    Args:
        metrics_port: Where its metrics are; they answer once all models are loaded.
        proc: The kernel's folder of processes: all Tritons in it are looked after.
    """
    if not answers(metrics_port):
        return 1
    broken = sorted(set(find_broken_servers(proc)))
    for server in broken:
        sys.stdout.write(f"Triton, process {server}, has lost a Python process: ending it\n")
        os.kill(server, signal.SIGKILL)
    return 1 if broken else 0


def answers(metrics_port: int) -> bool:
    """Ask for the metrics, past any proxy that the environment names."""
    connection = http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_broken_servers(proc: Path) -> Iterator[int]:
    """Find the parents of Python processes that do not run any more."""
    for path in proc.glob("[0-9]*/stat"):
        try:
            stat = path.read_text(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        fields = re.fullmatch(r"\d+ \((.*)\) (\S) (\d+) .*", stat.strip(), re.DOTALL)
        if fields and fields[1] == STUB and fields[2] in BROKEN_STATES:
            yield int(fields[3])


if __name__ == "__main__":
    sys.exit(main())
