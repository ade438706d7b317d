"""Starts Triton and the gateway in this order, restarts them if they fail, and stops them in reverse order."""

from __future__ import annotations

import logging
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
from launcher.processes import ChildProcess, child_environment
from launcher.settings import LauncherSettings

log = logging.getLogger(__name__)

READY_POLL_S = 0.1
WATCH_INTERVAL_S = 1.0
MIN_RESTART_DELAY_S = 0.5
MAX_RESTART_DELAY_S = 30.0

STABLE_AFTER_S = 60.0
"""After running this long, a process that fails is restarted with the shortest delay again."""


class Supervised:
    """A supervised process, running from construction on.

    Args:
        start: Starts the process.
        is_ready: Returns whether the process is ready.
    """

    def __init__(self, start: Callable[[], ChildProcess], is_ready: Callable[[], bool]) -> None:
        self.start = start
        self.is_ready = is_ready
        self.process = start()
        self.started_at = time.monotonic()
        self.restart_delay_s = MIN_RESTART_DELAY_S
        self.healthy_children = 0

    def wait_ready(self, timeout_s: float, stopping: threading.Event) -> None:
        """Wait until the process is ready or the service is being stopped.

        Raises:
            ProcessDiedError: The process exited.
            StartTimeoutError: The process was not ready within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not stopping.is_set() and not self.is_ready():
            if self.process.exit_code is not None:
                raise ProcessDiedError(self.process.name, self.process.log_tail())
            if time.monotonic() > deadline:
                raise StartTimeoutError(self.process.name, timeout_s, self.process.log_tail())
            stopping.wait(READY_POLL_S)
        self.healthy_children = self.process.count_healthy_children()

    def find_fault(self) -> str | None:
        """Return a description of the fault, if any: the process or one of its children has ended."""
        if self.process.exit_code is not None:
            return f"exited with code {self.process.exit_code}"
        if self.process.count_healthy_children() < self.healthy_children:
            return "has lost one of its processes"
        return None

    def restart(self, stopping: threading.Event) -> None:
        """Stop what is left of the process and start it again, with a longer delay each time it soon fails."""
        self.process.stop(grace_s=1.0)
        if time.monotonic() - self.started_at > STABLE_AFTER_S:
            self.restart_delay_s = MIN_RESTART_DELAY_S
        stopping.wait(self.restart_delay_s)
        self.restart_delay_s = min(2 * self.restart_delay_s, MAX_RESTART_DELAY_S)
        if not stopping.is_set():
            self.process = self.start()
            self.started_at = time.monotonic()
            self.healthy_children = 0

    def watch(self, stopping: threading.Event) -> None:
        """Count the children once the process is ready, and restart it if it has a fault."""
        if not self.healthy_children and self.is_ready():
            self.healthy_children = self.process.count_healthy_children()
        fault = self.find_fault()
        if fault:
            log.warning("%s %s: restarting it", self.process.name, fault)
            self.restart(stopping)


class Supervisor:
    """Triton and the gateway as one service.

    Args:
        settings: Ports, paths and timeouts.
        stopping: Set by the caller to stop the service.
    """

    def __init__(self, settings: LauncherSettings, stopping: threading.Event) -> None:
        self.settings = settings
        self.stopping = stopping
        self.supervised: list[Supervised] = []
        self.backends = triton.assemble_backends(settings.build_dir / f"triton_backends_{settings.triton_grpc_port}")

    def start(self) -> None:
        """Start Triton, then the gateway, and return once an inference through both has succeeded.

        Raises:
            ProcessDiedError: One of them exited.
            StartTimeoutError: One of them was not ready in time.
        """
        for start, is_ready in ((self.start_triton, self.is_triton_ready), (self.start_gateway, self.is_gateway_ready)):
            if not self.stopping.is_set():
                supervised = Supervised(start, is_ready)
                self.supervised.append(supervised)
                supervised.wait_ready(self.settings.start_timeout_s, self.stopping)
                log.info("%s is ready (%.1f s)", supervised.process.name, time.monotonic() - supervised.started_at)

    def run(self) -> None:
        """Watch both processes until the service is stopped."""
        while not self.stopping.wait(WATCH_INTERVAL_S):
            for supervised in self.supervised:
                supervised.watch(self.stopping)

    def stop(self) -> None:
        """Stop the gateway, which completes the requests in flight, then Triton."""
        for supervised in reversed(self.supervised):
            supervised.process.stop(self.settings.grace_s)

    def start_triton(self) -> ChildProcess:
        """Start the embedded Triton."""
        settings = self.settings
        command = triton.server_command(
            settings.served_repository,
            self.backends,
            settings.triton_grpc_port,
            settings.triton_metrics_port,
            settings.triton_address.removesuffix(f":{settings.triton_grpc_port}"),
        )
        return ChildProcess("Triton", command, triton.server_environment(), settings.build_dir / "logs" / "triton.log")

    def start_gateway(self) -> ChildProcess:
        """Start the gateway."""
        settings = self.settings
        command = [sys.executable, "-m", "gateway"]
        return ChildProcess(
            "gateway", command, gateway_environment(settings), settings.build_dir / "logs" / "gateway.log"
        )

    def is_triton_ready(self) -> bool:
        """Return whether Triton has loaded all models."""
        with grpc.insecure_channel(self.settings.triton_address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1.0).ready)
            except grpc.RpcError:
                return False

    def is_gateway_ready(self) -> bool:
        """Return whether an inference through the gateway has succeeded."""
        host = self.settings.host if self.settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        try:
            url = f"http://{host}:{self.settings.gateway_port}/v1/health/ready"
            with urllib.request.urlopen(url, timeout=2.0):
                return True
        except (urllib.error.URLError, OSError):
            return False


def gateway_environment(settings: LauncherSettings) -> dict[str, str]:
    """Return the gateway's environment: its own settings are inherited, the launcher's ports are set."""
    return {
        **child_environment(),
        "HOST": settings.host,
        "GATEWAY_PORT": str(settings.gateway_port),
        "TRITON_URL": settings.triton_address,
        "TRITON_METRICS_URL": f"http://127.0.0.1:{settings.triton_metrics_port}/metrics",
    }
