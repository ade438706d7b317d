"""The health checks of the containers: `python3 health_check.py triton` and `python3 health_check.py gateway`.

Docker restarts containers that exit, not unhealthy ones. So the check of a server that cannot recover kills it, and
says why in the container's log, because Docker forgets what its checks print. It tells hung servers from busy ones, as
launcher does: those neither respond, nor count requests, nor use processor time. It needs the standard library alone.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

TIMEOUT_S = 3.0
CANARY_TIMEOUT_S = 8.0
"""The gateway's readiness may have to wait for an inference."""

IDLE_HUNG_S = 15.0
"""Time without a response, without progress and without work after which a server counts as hung."""
SILENT_HUNG_S = 300.0
"""Time without a response or progress after which it does in any case."""
PUBLISHED_S = 5.0
"""Time without a change after which a publication of models is complete: it is a few renames."""
LOADING_HUNG_S = 600.0
"""Time without work after which one counts as hung that has not responded yet; while it works, it loads."""
BUSY_SHARE = 0.1
"""Share of a core above which a silent server counts as busy."""

INITS = ("docker-init", "tini")
"""Names of process 1 in a container with an init; anywhere else nothing is killed."""
STUB = "triton_python_b"
"""Name of a stub's process, as truncated by the kernel."""
SERVER = "tritonserver"
STOPPED_STATES = "Tt"
BROKEN_STATES = f"ZX{STOPPED_STATES}"
"""Zombie, dead, stopped, traced (proc(5))."""

COUNTERS = re.compile(rb"^(?:nv_inference_request_(?:success|failure)|nv_inference_count)\{.*\} (\S+)$", re.MULTILINE)
PENDING = re.compile(rb"^nv_inference_pending_request_count\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """A process, as `/proc` describes it.

    Attributes:
        pid: Its id.
        name: Name of the program, of at most 15 characters.
        state: A letter (proc(5)).
        parent: Id of its parent.
        cpu_s: Processor time that it and its ended children have used, in seconds.
    """

    pid: int
    name: str
    state: str
    parent: int
    cpu_s: float


@dataclass(frozen=True)
class Observation:
    """What the check before this one saw; kept in a file, because each check is a process of its own.

    Attributes:
        server: Id of the main process.
        now_s: Time of the check, on the system's monotonic clock.
        cpu_s: Processor time that all processes had used.
        progress: What the server had counted.
        responded: Whether it had responded since it was started.
        silent_since_s: When it was first seen not to respond, or not to get on with its requests; None if it did.
        idle_since_s: Since when it has not used the processor either.
    """

    server: int
    now_s: float
    cpu_s: float
    progress: float
    responded: bool
    silent_since_s: float | None = None
    idle_since_s: float | None = None


@dataclass(frozen=True)
class Container:
    """Where a check finds what it looks at.

    Attributes:
        proc: Folder of the kernel's process information.
        memory: Folder in which checks leave what they saw to the next.
        repository: Triton's model repository.
        port: Port to ask instead of the server's own.
    """

    proc: Path = Path("/proc")
    memory: Path = Path("/tmp")  # noqa: S108 - of the container alone
    repository: Path = Path("/models/repository")
    port: int | None = None


def main(server: str, container: Container = Container()) -> int:
    """Return 0 if the server, `triton` or `gateway`, can serve; end it if it cannot recover."""
    return check_triton(container) if server == "triton" else check_gateway(container)


def check_triton(container: Container) -> int:
    """Check that Triton's metrics respond, that requests get on, and that none of its Python processes is lost.

    Triton does not restart a dead Python process: it still reports itself ready, but every request fails. And it reads
    the repository only when it starts, so it is stopped when models were published since.
    """
    processes = list(read_processes(container.proc))
    stopped = {process.pid for process in processes if process.name == SERVER and process.state in STOPPED_STATES}
    if stopped:
        return end(stopped, "it is stopped", container)
    metrics = get(container.port or 8002, "/metrics", TIMEOUT_S)
    if metrics is not None and (broken := find_broken(processes)):  # while it loads, Python processes come and go
        return end(broken, "it has lost a Python process, or one is stopped", container)
    progress = sum(map(float, COUNTERS.findall(metrics or b"")))
    pending = sum(map(float, PENDING.findall(metrics or b"")))
    if reason := find_hang(processes, container, responds=metrics is not None, progress=progress, pending=pending):
        return end(find_main(processes), reason, container)
    if metrics is not None and find_publication(processes, container):
        return end(find_main(processes), "the models have changed since it was started", container, signal.SIGTERM)
    return 1 if metrics is None else 0


def check_gateway(container: Container) -> int:
    """Check that the gateway is ready; kill it only if it is not even live: Triton's failures are none of its own."""
    processes = list(read_processes(container.proc))
    main_processes = find_main(processes)
    stopped = {process.pid for process in processes if process.state in STOPPED_STATES}
    end(stopped - main_processes, "it is stopped; another worker process takes its place", container)
    if stopped & main_processes:
        return end(stopped & main_processes, "it is stopped", container)
    port = container.port or 8000
    is_live = get(port, "/v1/health/live", TIMEOUT_S) is not None
    if reason := find_hang(processes, container, responds=is_live):
        return end(main_processes, reason, container)
    return 0 if is_live and get(port, "/v1/health/ready", CANARY_TIMEOUT_S) is not None else 1


def find_publication(processes: list[Process], container: Container) -> bool:
    """Return whether models were published or removed since the first check of this server; once only."""
    memory = container.memory / "published.json"
    server = min(find_main(processes), default=0)
    try:
        published_s = container.repository.stat().st_mtime
        first_server, first_s = json.loads(memory.read_text()) if memory.exists() else (None, None)
    except (OSError, ValueError):
        return False
    if first_server == server and (published_s == first_s or time.time() - published_s < PUBLISHED_S):
        return False
    with suppress(OSError):
        memory.write_text(json.dumps([server, published_s]))
    return first_server == server


def find_broken(processes: list[Process]) -> set[int]:
    """Return each Triton of which a Python stub no longer runs."""
    return {process.parent for process in processes if process.name == STUB and process.state in BROKEN_STATES}


def find_hang(
    processes: list[Process], container: Container, *, responds: bool, progress: float = 0.0, pending: float = 0.0
) -> str | None:
    """Return why the server counts as hung, as the end of a sentence; None if it does not.

    Args:
        processes: All of the container.
        container: Where the last check left what it saw.
        responds: Whether the server does.
        progress: A number that grows with the requests that are done.
        pending: Requests that wait.
    """
    memory = container.memory / "observation.json"
    now_s, cpu_s = time.monotonic(), sum(process.cpu_s for process in processes)
    server = min(find_main(processes), default=0)
    last = read_observation(memory)
    if last is not None and last.server != server:
        last = None
    responded = responds or (last is not None and last.responded)
    if last is None or (responds and not pending) or progress > last.progress:
        write_observation(memory, Observation(server, now_s, cpu_s, progress, responded))
        return None
    is_busy = cpu_s - last.cpu_s > BUSY_SHARE * (now_s - last.now_s)
    silent_since_s = last.silent_since_s or now_s
    idle_since_s = now_s if is_busy else last.idle_since_s or now_s
    write_observation(memory, Observation(server, now_s, cpu_s, last.progress, responded, silent_since_s, idle_since_s))
    if now_s - idle_since_s >= (IDLE_HUNG_S if responded else LOADING_HUNG_S):
        return f"it has neither responded nor worked for {now_s - idle_since_s:.0f} s"
    if responded and now_s - silent_since_s >= SILENT_HUNG_S:
        return f"it has completed nothing for {now_s - silent_since_s:.0f} s"
    return None


def read_observation(memory: Path) -> Observation | None:
    """Return what the last check saw; None if there was none."""
    try:
        return Observation(**json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_observation(memory: Path, observation: Observation) -> None:
    """Leave to the next check what this one saw; a full disk only makes it forget."""
    with suppress(OSError):
        memory.write_text(json.dumps(asdict(observation)))


def get(port: int, path: str, timeout_s: float) -> bytes | None:
    """Return the body of a successful response; None if there is none. Proxies of the environment are not used."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def find_main(processes: list[Process]) -> set[int]:
    """Return the processes that the container's init runs; killing them ends the container."""
    return {process.pid for process in processes if process.parent == 1}


def end(pids: set[int], reason: str, container: Container, how: signal.Signals = signal.SIGKILL) -> int:
    """End processes of a container that Docker starts again, say why in the container's log, and return 1."""
    is_container = any(process.pid == 1 and process.name in INITS for process in read_processes(container.proc))
    for pid in sorted(pids) if is_container else ():
        line = f"health check: {how.name} to process {pid}: {reason}\n"
        sys.stdout.write(line)
        with suppress(OSError), (container.proc / "1" / "fd" / "2").open("a") as log:
            log.write(line)
        with suppress(ProcessLookupError):
            os.kill(pid, how)
    return 1


def read_processes(proc: Path) -> Iterator[Process]:
    """Yield each process."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for path in proc.glob("[0-9]*/stat"):
        try:
            stat = path.read_text(errors="replace")
        except OSError:  # the process has ended in the meantime
            continue
        head, _, rest = stat.rpartition(")")
        pid, _, name = head.partition(" (")
        state, parent, *fields = rest.split()
        cpu_s = sum(map(int, fields[9:13])) * tick_s  # fields 14 to 17: utime, stime, cutime, cstime
        yield Process(int(pid), name, state, int(parent), cpu_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
