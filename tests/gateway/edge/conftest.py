"""Gateways with narrow limits, as processes of their own: an attack must not share the interpreter of its victim."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service import PROJECT, free_ports, wait_until


@dataclass(frozen=True)
class Victim:
    """A gateway under attack, or the proxy in front of it.

    Attributes:
        port: Where it listens.
        process: Of the server.
        gateway: Behind the proxy.
    """

    port: int
    process: psutil.Process
    gateway: "Victim | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resident_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    def open_ports(self) -> set[int]:
        """Return the ports of clients with an open connection."""
        processes = [self.process, *self.process.children()]
        connections = [each for process in processes for each in process.net_connections("tcp")]
        return {each.raddr.port for each in connections if each.status == psutil.CONN_ESTABLISHED and each.raddr}

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


@contextmanager
def run_nginx(gateway: Victim, folder: Path) -> Iterator[Victim]:
    """Run nginx in front of a gateway, with the configuration of the deployment but for short times."""
    [port] = free_ports(1)
    configuration = (PROJECT / "deploy" / "nginx.conf").read_text()
    for old, new in (
        ("gateway:8000", f"127.0.0.1:{gateway.port}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/tmp/", f"{folder}/"),
        ("client_header_timeout 15s", "client_header_timeout 1s"),
        ("client_body_timeout 20s", "client_body_timeout 1s"),
        ("send_timeout 30s;\n    keepalive_timeout 75s", "send_timeout 1s;\n    keepalive_timeout 2s"),
    ):
        assert old in configuration
        configuration = configuration.replace(old, new)
    user = "user root;\n" if os.geteuid() == 0 else ""  # or its workers could not write below the folder
    (folder / "nginx.conf").write_text(user + configuration)
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")])
    try:
        wait_until(lambda: is_listening(port), 10)
        yield Victim(port, psutil.Process(process.pid), gateway)
    finally:
        process.terminate()
        process.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=["direct", "nginx"])
def front(request: pytest.FixtureRequest, victim: Victim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """What clients reach: the gateway, or nginx in front of it."""
    if request.param == "direct":
        yield victim
        return
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: its configuration is NOT TESTED")
    with run_nginx(victim, tmp_path_factory.mktemp("nginx")) as running:
        yield running


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
