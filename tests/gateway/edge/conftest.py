"""Gateways with narrow limits, as processes of their own: an attack must not share the interpreter of its victim."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest

from tests.service import free_ports, wait_until


@dataclass(frozen=True)
class Victim:
    """A gateway under attack."""

    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resident_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over all its labels."""
        lines = httpx.get(f"{self.url}/v1/metrics", timeout=10).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


StartVictim = Callable[..., Victim]


@contextmanager
def run_victim(descriptors: int, **settings: str) -> Iterator[Victim]:
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.edge.server"],
        env=os.environ | {"GATEWAY_PORT": str(port), "GATEWAY_LOG_LEVEL": "error"} | settings,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    victim = Victim(port, psutil.Process(process.pid))

    def is_live() -> bool:
        try:
            return httpx.get(f"{victim.url}/v1/health/live").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_live, 60)
        yield victim
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def start_victim() -> Iterator[StartVictim]:
    """Start a gateway with settings (`GATEWAY_...`) as environment variables."""
    with ExitStack() as stack:
        yield lambda descriptors=4096, **settings: stack.enter_context(run_victim(descriptors, **settings))


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """A gateway whose limits are reached soon."""
    with run_victim(
        4096,
        GATEWAY_HEADER_TIMEOUT_S="1",
        GATEWAY_RECEIVE_TIMEOUT_S="1",
        GATEWAY_SEND_TIMEOUT_S="1",
        GATEWAY_IDLE_TIMEOUT_S="2",
        GATEWAY_MAX_BUFFERED_BYTES="16000000",
    ) as started:
        yield started
