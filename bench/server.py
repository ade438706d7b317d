"""Servers as processes of their own: start, wait until an inference answers, stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ServiceFailedError
from bench.settings import PROJECT

START_TIMEOUT_S = 600.0
POLL_S = 0.2


@dataclass(frozen=True)
class Server:
    """A running server of embeddings.

    Attributes:
        url: Where to POST requests.
        pid: The process that has started all others.
    """

    url: str
    pid: int


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@contextmanager
def run_server(
    name: str, command: Sequence[str], environment: Mapping[str, str], url: str, probe: Mapping[str, object], log: Path
) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        name: What to call it before people.
        command: Program and arguments.
        environment: Its whole environment.
        url: Where it takes requests.
        probe: A request that succeeds once it is ready.
        log: File for its output.

    Raises:
        ServiceFailedError: It ends, or does not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        try:
            process = subprocess.Popen(command, cwd=PROJECT, env=dict(environment), stdout=output, stderr=output)
        except OSError as error:
            raise ServiceFailedError(name, str(error)) from error
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(url, probe):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceFailedError(name, log.read_text(errors="replace")[-2000:])
            time.sleep(POLL_S)
        yield Server(url, process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str, body: Mapping[str, object]) -> bool:
    """Whether a POST succeeds."""
    request = urllib.request.Request(  # noqa: S310 - our own http address
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False
