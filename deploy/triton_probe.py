"""Docker's health check of Triton: its metrics respond, and none of its Python processes is dead or stopped.

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
BROKEN_STATES = "ZXTt"
"""Zombie, dead, stopped, traced (proc(5))."""


def main(metrics_port: int = METRICS_PORT, proc: Path = Path("/proc")) -> int:
    """Return 0 if Triton can serve, and kill it if it cannot recover.

    Args:
        metrics_port: Port of Triton's metrics, which respond once all models are loaded.
        proc: Folder of the kernel's process information; every Triton in it is checked.
    """
    if not serves_metrics(metrics_port):
        return 1
    broken = sorted(set(find_broken_servers(proc)))
    for server in broken:
        sys.stdout.write(f"Triton, process {server}, has lost a Python process: killing it\n")
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
    for path in proc.glob("[0-9]*/stat"):
        try:
            stat = path.read_text(errors="replace")
        except OSError:  # the process has ended in the meantime
            continue
        fields = re.fullmatch(r"\d+ \((.*)\) (\S) (\d+) .*", stat.strip(), re.DOTALL)
        if fields and fields[1] == STUB and fields[2] in BROKEN_STATES:
            yield int(fields[3])


if __name__ == "__main__":
    sys.exit(main())
