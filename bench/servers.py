"""Servers under test: start them as processes, wait until they embed, read their CPU time, stop them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.errors import ServiceFailedError
from bench.settings import PROJECT, BenchSettings
from launcher.settings import TEXT_MODEL

START_TIMEOUT_S = 600.0
PROBE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.2
MAX_LOG_TAIL_CHARS = 2000

# What the names of Triton's models end with (docs/contract.md).
STEPS = ("preprocess_text", "preprocess_image", "vision_encoder", "embedder")

# Names what a process does; processes with the same name are added up.
Label = Callable[[psutil.Process], str]

libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Server:
    """A running embeddings server.

    Attributes:
        url: URL to POST requests to.
        pid: Process that started all others.
        label: Names each of the processes.
    """

    url: str
    pid: int
    label: Label

    def read_cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time used so far, user and system, by process."""
        return read_cpu_seconds(self.pid, self.label)


@dataclass(frozen=True)
class Service(Server):
    """The whole service, as `make serve` starts it; its first process is the launcher.

    Attributes:
        grpc_address: Host and port of Triton's gRPC.
    """

    grpc_address: str


@contextmanager
def run_service(settings: BenchSettings, model: str = TEXT_MODEL) -> Iterator[Service]:
    """Serve the repository under test through the launcher until the block ends.

    Args:
        settings: Settings of the run.
        model: Public id of a model in the repository; the service is ready once it embeds a text.

    Raises:
        ServiceFailedError: The service does not start.
    """
    http_port, grpc_port, metrics_port = find_free_ports(3)
    environment = os.environ | {
        "GATEWAY_PORT": str(http_port),
        "TRITON_GRPC_PORT": str(grpc_port),
        "TRITON_METRICS_PORT": str(metrics_port),
        "REPOSITORY": str(settings.repository),
        "BUILD_DIR": str(settings.build_dir / "service"),
    }
    url = f"http://127.0.0.1:{http_port}/v1/embeddings"
    probe = {"model": model, "input": "ready?"}
    log = settings.build_dir / "logs" / "launcher.log"
    with run_server("the service", [sys.executable, "-m", "launcher"], environment, url, probe, log) as server:
        yield Service(url, server.pid, name_service_process, f"127.0.0.1:{grpc_port}")


@contextmanager
def run_gateway_alone(settings: BenchSettings) -> Iterator[Server]:
    """Serve through the gateway in front of `bench.instant_triton` until the block ends.

    Raises:
        ServiceFailedError: The gateway does not start.
    """
    http_port, grpc_port = find_free_ports(2)
    environment = os.environ | {"GATEWAY_PORT": str(http_port), "TRITON_URL": f"127.0.0.1:{grpc_port}"}
    command = [sys.executable, "-m", "bench.instant_triton", str(settings.repository), str(grpc_port)]
    engine = subprocess.Popen(command, cwd=PROJECT)
    url = f"http://127.0.0.1:{http_port}/v1/embeddings"
    probe = {"model": TEXT_MODEL, "input": "ready?"}
    log = settings.build_dir / "logs" / "gateway_alone.log"
    try:
        with run_server("gateway", [sys.executable, "-m", "gateway"], environment, url, probe, log) as server:
            yield server
    finally:
        engine.terminate()
        engine.wait()


@contextmanager
def run_server(
    name: str, command: Sequence[str], environment: Mapping[str, str], url: str, probe: Mapping[str, object], log: Path
) -> Iterator[Server]:
    """Run a server until the block ends.

    Args:
        name: Name in messages, and of its processes.
        command: Program and arguments.
        environment: Its whole environment.
        url: URL to POST requests to.
        probe: Body of a request that succeeds once the server is ready.
        log: File for its output.

    Raises:
        ServiceFailedError: The server ends, or is not ready in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        try:
            process = subprocess.Popen(command, cwd=PROJECT, env=dict(environment), stdout=output, stderr=output)
        except OSError as error:
            raise ServiceFailedError(name, str(error)) from error
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ready(url, probe):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceFailedError(name, log.read_text(errors="replace")[-MAX_LOG_TAIL_CHARS:])
            time.sleep(POLL_S)
        yield Server(url, process.pid, lambda _: name)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(url: str, probe: Mapping[str, object]) -> bool:
    """Return whether a POST of the probe succeeds."""
    try:
        post_json(url, probe, PROBE_TIMEOUT_S)
    except (OSError, ValueError):  # not listening, not ready, or not JSON
        return False
    return True


def post_json(url: str, body: Mapping[str, object], timeout_s: float) -> Any:
    """Return the JSON of a response; the environment's proxies are not for loopback.

    Raises:
        OSError: The request fails, or its status is not 2xx.
    """
    request = urllib.request.Request(  # noqa: S310 - a fixed http URL
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout_s) as response:
        return json.load(response)


def find_free_ports(count: int) -> list[int]:
    """Return ports on the loopback interface that are not in use."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def name_service_process(process: psutil.Process) -> str:
    """Return which part of the service a process is: gateway, triton, decode, launcher or a step of an ensemble."""
    words = process.cmdline()
    if "gateway" in words or "multiprocessing" in " ".join(words):
        return "gateway"
    names = {Path(word).name for word in words}
    if "tritonserver" in names:
        return "triton"
    if "triton_python_backend_stub" in names:
        model = Path(words[1]).parents[1].name
        return next((step for step in STEPS if model.endswith(step)), model)
    return "decode" if "preprocess.decode_worker" in words else "launcher"


def read_cpu_seconds(root_pid: int, label: Label) -> dict[str, float]:
    """Return the CPU time used so far, user and system, by a process and its descendants.

    Args:
        root_pid: Process that started the others.
        label: Names each of them.
    """
    root = psutil.Process(root_pid)
    seconds: dict[str, float] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            used = read_cpu_clock(process.pid)
            name = label(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
        seconds[name] = seconds.get(name, 0.0) + used
    return seconds


def read_cpu_clock(pid: int) -> float:
    """Return the CPU time of a process in seconds, to the nanosecond; `/proc` counts hundredths of a second.

    Raises:
        ProcessLookupError: There is no such process.
    """
    clock = ctypes.c_int()
    if libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(pid)
    try:
        return time.clock_gettime(clock.value)
    except OSError as error:  # it has just ended
        raise ProcessLookupError(pid) from error


def compute_cpu_us_per_item(before: Mapping[str, float], after: Mapping[str, float], items: int) -> dict[str, float]:
    """Return the CPU time per item by process, in microseconds, between two readings in seconds."""
    return {name: (after[name] - before.get(name, 0.0)) / items * 1e6 for name in after}
