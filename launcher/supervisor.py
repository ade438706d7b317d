"""Starts Triton and the gateway in that order, keeps both running, and stops them in the other."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from launcher import triton
from launcher.errors import ProcessDiedError, StartTimeoutError
from launcher.processes import ChildProcess
from launcher.settings import LauncherSettings

log = logging.getLogger(__name__)

POLL_S = 0.1
WATCH_S = 1.0
MAX_RESTART_DELAY_S = 30.0
STABLE_S = 60.0
"""A process that has run this long has started well: the next restart waits the shortest time again."""


class Supervised:
    """One supervised process: how to start it, when it is ready, and how long to wait before starting it again."""

    def __init__(self, start: Callable[[], ChildProcess], is_ready: Callable[[], bool]) -> None:
        """Start it."""
        self.start = start
        self.is_ready = is_ready
        self.process = start()
        self.started_at = time.monotonic()
        self.delay_s = 0.5
        self.healthy_children = 0

    def wait_ready(self, timeout_s: float, stopping: threading.Event) -> None:
        """Wait until it is ready or everything is to stop.

        Raises:
            ProcessDiedError: It ended first.
            StartTimeoutError: It took longer than `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not stopping.is_set() and not self.is_ready():
            if self.process.exit_code is not None:
                raise ProcessDiedError(self.process.name, self.process.log_tail())
            if time.monotonic() > deadline:
                raise StartTimeoutError(self.process.name, timeout_s, self.process.log_tail())
            stopping.wait(POLL_S)
        self.healthy_children = self.process.count_healthy_children()

    def find_fault(self) -> str | None:
        """Say what is wrong with it, if anything: it has ended, or a process that it needs has."""
        if self.process.exit_code is not None:
            return f"ended with code {self.process.exit_code}"
        if self.process.count_healthy_children() < self.healthy_children:
            return "lost one of its processes"
        return None

    def restart(self, stopping: threading.Event) -> None:
        """Stop what is left of it, wait longer each time it fails soon, and start it again."""
        self.process.stop(grace_s=1.0)
        if time.monotonic() - self.started_at > STABLE_S:
            self.delay_s = 0.5
        stopping.wait(self.delay_s)
        self.delay_s = min(2 * self.delay_s, MAX_RESTART_DELAY_S)
        if not stopping.is_set():
            self.process = self.start()
            self.started_at = time.monotonic()
            self.healthy_children = 0

    def watch(self, stopping: threading.Event) -> None:
        """Restart it if something is wrong; learn its processes once it is ready."""
        if not self.healthy_children and self.is_ready():
            self.healthy_children = self.process.count_healthy_children()
        fault = self.find_fault()
        if fault:
            log.warning("%s %s: starting it again", self.process.name, fault)
            self.restart(stopping)


class Supervisor:
    """Triton and the gateway, as one service."""

    def __init__(self, settings: LauncherSettings, stopping: threading.Event) -> None:
        """Start nothing yet.

        Args:
            settings: Ports, paths and patience.
            stopping: Set from outside when everything is to end.
        """
        self.settings = settings
        self.stopping = stopping
        self.supervised: list[Supervised] = []
        self.backends = triton.assemble_backends(settings.build_dir / f"triton_backends_{settings.triton_grpc_port}")

    def start(self) -> None:
        """Start Triton, then the gateway; return when a real inference has answered through both.

        Raises:
            ProcessDiedError: One of them ended.
            StartTimeoutError: One of them took too long.
        """
        for start, is_ready in ((self.start_triton, self.is_triton_ready), (self.start_gateway, self.is_gateway_ready)):
            if not self.stopping.is_set():
                supervised = Supervised(start, is_ready)
                self.supervised.append(supervised)
                supervised.wait_ready(self.settings.start_timeout_s, self.stopping)
                log.info("%s is ready (%.1f s)", supervised.process.name, time.monotonic() - supervised.started_at)

    def run(self) -> None:
        """Keep both running until everything is to stop."""
        while not self.stopping.wait(WATCH_S):
            for supervised in self.supervised:
                supervised.watch(self.stopping)

    def stop(self) -> None:
        """Stop the gateway, which finishes what it has accepted, then Triton."""
        for supervised in reversed(self.supervised):
            supervised.process.stop(self.settings.grace_s)

    def start_triton(self) -> ChildProcess:
        """Start the embedded Triton."""
        settings = self.settings
        command = triton.server_command(
            settings.served_repository, self.backends, settings.triton_grpc_port, settings.triton_metrics_port
        )
        return ChildProcess("Triton", command, triton.server_environment(), settings.build_dir / "logs" / "triton.log")

    def start_gateway(self) -> ChildProcess:
        """Start the gateway."""
        settings = self.settings
        environment = {
            **os.environ,
            "HOST": settings.host,
            "GATEWAY_PORT": str(settings.gateway_port),
            "TRITON_URL": f"127.0.0.1:{settings.triton_grpc_port}",
            "TRITON_METRICS_URL": f"http://127.0.0.1:{settings.triton_metrics_port}/metrics",
        }
        command = [sys.executable, "-m", "gateway"]
        return ChildProcess("gateway", command, environment, settings.build_dir / "logs" / "gateway.log")

    def is_triton_ready(self) -> bool:
        """Ask Triton whether all its models are loaded."""
        with grpc.insecure_channel(f"127.0.0.1:{self.settings.triton_grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1.0).ready)
            except grpc.RpcError:
                return False

    def is_gateway_ready(self) -> bool:
        """Ask the gateway whether an inference has worked."""
        host = self.settings.host if self.settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        try:
            url = f"http://{host}:{self.settings.gateway_port}/v1/health/ready"
            with urllib.request.urlopen(url, timeout=2.0):
                return True
        except (urllib.error.URLError, OSError):
            return False
