"""Start the whole service for tests, on free ports, and stop it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Service:
    """A running service."""

    launcher: subprocess.Popen[str]
    http_url: str
    grpc_url: str
    output_path: Path

    def is_ready(self) -> bool:
        return is_ready(self.http_url)

    def processes(self) -> list[psutil.Process]:
        """Return every process that descends from the launcher."""
        return psutil.Process(self.launcher.pid).children(recursive=True)

    def find(self, program: str) -> psutil.Process:
        """Return the launcher's child that runs the program or module of that name."""
        children = psutil.Process(self.launcher.pid).children()
        [process] = [child for child in children if program in {Path(word).name for word in child.cmdline()}]
        return process


def free_ports(count: int) -> list[int]:
    """Return TCP ports on loopback that are not in use."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def export_all(checkpoints: Mapping[str, Path], repository: Path, *options: str) -> None:
    """Export checkpoints by the command, each with its public id, with the same options."""
    for name, folder in checkpoints.items():
        arguments = [str(folder), "--name", name, "--repository", str(repository), *options]
        subprocess.run([sys.executable, "-m", "export", *arguments], cwd=PROJECT, check=True)


@contextmanager
def run_service(repository: Path, work_dir: Path, **settings: str) -> Iterator[Service]:
    """Serve a model repository until the block ends, then stop everything by SIGTERM.

    Args:
        repository: Triton model repository.
        work_dir: Folder for logs.
        settings: Additional environment variables.
    """
    http_port, grpc_port, metrics_port = free_ports(3)
    environment = (
        os.environ
        | settings
        | {
            "GATEWAY_PORT": str(http_port),
            "TRITON_GRPC_PORT": str(grpc_port),
            "TRITON_METRICS_PORT": str(metrics_port),
            "REPOSITORY": str(repository),
            "BUILD_DIR": str(work_dir),
        }
    )
    output_path = work_dir / "launcher.log"
    with output_path.open("w") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "launcher"], cwd=PROJECT, env=environment, stdout=output, stderr=output, text=True
        )
    service = Service(launcher, f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", output_path)
    try:
        wait_until(lambda: service.is_ready() or launcher.poll() is not None, START_TIMEOUT_S)
        assert launcher.poll() is None, output_path.read_text()
        yield service
    finally:
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGTERM)
        launcher.wait(60)


@contextmanager
def run_gateway(service: Service, **settings: str) -> Iterator[str]:
    """Run a second gateway, with other settings, in front of a service's Triton.

    Args:
        service: The running service.
        settings: Environment variables.

    Yields:
        The gateway's URL.
    """
    [port] = free_ports(1)
    environment = os.environ | {"GATEWAY_PORT": str(port), "TRITON_URL": service.grpc_url} | settings
    gateway = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_ready(url), START_TIMEOUT_S)
        yield url
    finally:
        gateway.terminate()
        gateway.wait(30)


def is_ready(url: str) -> bool:
    """Return whether the gateway at a URL says that it is ready."""
    try:
        return httpx.get(f"{url}/v1/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: The condition did not hold within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)
