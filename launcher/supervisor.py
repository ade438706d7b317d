"""Starts Triton and the gateway in this order, restarts them if they fail, and stops them in reverse order."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher import triton
from launcher.errors import (
    CrashLoopError,
    NoModelLoadedError,
    ProcessDiedError,
    StartTimeoutError,
    UnwritableFolderError,
)
from launcher.logs import rotate_log
from launcher.model_control import ModelControl
from launcher.models import PreparedModels
from launcher.probes import GatewayProbe, Probe, TritonProbe
from launcher.processes import ChildProcess, child_environment, kill_programs_of
from launcher.served import find_place
from launcher.settings import LauncherSettings
from launcher.shared_memory import remove_dead_regions
from launcher.watchdog import IsPart, Watchdog, is_stub

log = logging.getLogger(__name__)

READY_POLL_S = 0.1
WATCH_INTERVAL_S = 1.0
MIN_RESTART_DELAY_S = 0.5
MAX_RESTART_DELAY_S = 30.0

STABLE_AFTER_S = 10.0
"""After responding this long, a process that fails is restarted with the shortest delay again."""

MAX_FAILED_STARTS = 5
"""After so many starts in a row that end before the process responds, the launcher gives up."""

MAX_RELOADS = 3
"""How often Triton is restarted because it could not load a model that it had loaded before."""

MAX_TRITON_SILENCE_S = 300.0
"""Time for which a busy Triton may respond to nothing: more than gateway.engine's limit of a call."""

MAX_GATEWAY_SILENCE_S = 60.0


class Supervised:
    """A supervised process, running from construction on.

    Args:
        start: Starts the process.
        probe: Questions to the process.
        start_timeout_s: Time for it to respond after a restart, in seconds.
        is_part: Tells descendants without which it cannot work from those that it replaces by itself.
        max_silence_s: Time for which it may respond to nothing while it is busy, in seconds.
    """

    def __init__(
        self,
        start: Callable[[], ChildProcess],
        probe: Probe,
        start_timeout_s: float,
        *,
        is_part: IsPart = lambda process: False,
        max_silence_s: float = MAX_GATEWAY_SILENCE_S,
    ) -> None:
        self._start = start
        self._probe = probe
        self._start_timeout_s = start_timeout_s
        self._is_part = is_part
        self._max_silence_s = max_silence_s
        self.restart_delay_s = MIN_RESTART_DELAY_S
        self._failed_starts = 0
        self._run()

    def _run(self) -> None:
        self.process = self._start()
        self.started_s = time.monotonic()
        self.responded_s: float | None = None
        self._probe.reset()
        self._watchdog = Watchdog(self.process, self._probe, self._is_part, self._max_silence_s)

    def wait_ready(self, is_ready: Callable[[], bool], stopping: threading.Event) -> None:
        """Wait until the process is ready for the first time or the service is being stopped.

        Raises:
            ProcessDiedError: The process exited.
            StartTimeoutError: The process was not ready in time.
        """
        while not stopping.is_set() and not is_ready():
            if self.process.exit_code is not None:
                raise ProcessDiedError(self.process.name, self.process.log_tail())
            if self._is_late():
                raise StartTimeoutError(self.process.name, self._start_timeout_s, self.process.log_tail())
            stopping.wait(READY_POLL_S)
        self._note_response()

    def find_fault(self) -> str | None:
        """Return what is wrong with the process, as the end of a sentence; None if nothing is."""
        broken = self._watchdog.find_broken()
        if broken or self.has_responded:
            return broken or self._watchdog.find_hang()
        if not self._probe.find_silent():
            self._note_response()
        elif self._is_late():
            return f"was not ready within {self._start_timeout_s:.0f} s"
        return None

    def restart(self, fault: str, stopping: threading.Event) -> None:
        """Kill what is left of the process and start it again, with a longer delay each time it soon fails.

        Raises:
            CrashLoopError: It has failed too often before it responded.
        """
        self.process.kill()
        self._failed_starts = 0 if self.has_responded else self._failed_starts + 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise CrashLoopError(self.process.name, fault, self._failed_starts, self.process.log_tail())
        log.warning("%s %s: restarting it", self.process.name, fault)
        if self.responded_s is not None and time.monotonic() - self.responded_s > STABLE_AFTER_S:
            self.restart_delay_s = MIN_RESTART_DELAY_S
        stopping.wait(self.restart_delay_s)
        self.restart_delay_s = min(2 * self.restart_delay_s, MAX_RESTART_DELAY_S)
        if not stopping.is_set():
            self._run()

    def watch(self, stopping: threading.Event) -> None:
        """Restart the process if it has a fault.

        Raises:
            CrashLoopError: It has failed too often before it responded.
        """
        fault = self.find_fault()
        if fault:
            self.restart(fault, stopping)

    @contextmanager
    def changing_parts(self) -> Iterator[None]:
        """Do not take it for a fault within the block that the process has more parts, or fewer."""
        self._watchdog.ignore_parts()
        yield
        self._watchdog.settle_parts()

    @property
    def has_responded(self) -> bool:
        """Whether the process has responded since it was started."""
        return self.responded_s is not None

    def _note_response(self) -> None:
        self.responded_s = time.monotonic()
        self._watchdog.count_parts()

    def _is_late(self) -> bool:
        return time.monotonic() - self.started_s > self._start_timeout_s


class Supervisor:
    """Triton and the gateway as one service.

    Args:
        settings: Ports, paths and timeouts.
        models: What to serve.
        stopping: Set by the caller to stop the service.
    """

    def __init__(self, settings: LauncherSettings, models: PreparedModels, stopping: threading.Event) -> None:
        self.settings = settings
        self.models = models
        self.stopping = stopping
        self.supervised: list[Supervised] = []
        self.backends = triton.assemble_backends(
            settings.build_dir / f"triton_backends_{settings.triton_grpc_port}", settings.native_backend
        )
        self.served_folder = find_place(settings.build_dir, models.repository, settings.triton_grpc_port)
        self._control = ModelControl(
            settings.triton_address, models.repository, self.served_folder, lambda: self.supervised[0].changing_parts()
        )
        try:
            self._control.fill(models.published, models.damaged)
        except OSError as error:
            raise UnwritableFolderError(self.served_folder.parent, error) from error
        self._triton_probe = TritonProbe(settings.triton_address, self._control.list_ensembles)
        self._gateway_probe = GatewayProbe(settings.host, settings.gateway_port)
        self._reloads = 0

    def start(self) -> None:
        """Start Triton, then the gateway, and return once an inference through both has succeeded.

        Raises:
            ProcessDiedError: One of them exited.
            StartTimeoutError: One of them was not ready in time.
            NoModelLoadedError: Triton could load none of the models.
        """
        timeout_s = self.settings.start_timeout_s
        server = Supervised(
            self.start_triton, self._triton_probe, timeout_s, is_part=is_stub, max_silence_s=MAX_TRITON_SILENCE_S
        )
        self._await(server, self._triton_probe.is_live)
        if self.stopping.is_set():
            return
        self._control.note_loaded(self._triton_probe.list_loaded())
        if self.models.limits and not self._control.list_ensembles():
            raise NoModelLoadedError(server.process.log_tail())
        for model in self._control.list_unavailable() - self.models.damaged.keys():
            log.warning("%s could not be loaded and is not served; %s has the reason", model, server.process.log_path)
        self._await(Supervised(self.start_gateway, self._gateway_probe, timeout_s), self._gateway_probe.is_ready)

    def _await(self, supervised: Supervised, is_ready: Callable[[], bool]) -> None:
        self.supervised.append(supervised)
        supervised.wait_ready(is_ready, self.stopping)
        log.info("%s is ready (%.1f s)", supervised.process.name, time.monotonic() - supervised.started_s)

    def run(self) -> None:
        """Watch both processes until the service is stopped.

        Raises:
            CrashLoopError: One of them fails each time it is started.
        """
        settings = self.settings
        threading.Thread(target=self._follow_repository, name="models", daemon=True).start()
        while not self.stopping.wait(WATCH_INTERVAL_S):
            for supervised in self.supervised:
                rotate_log(supervised.process.log_path, settings.log_max_bytes, settings.log_backups)
                supervised.watch(self.stopping)
            self._reload_lost_models()

    def _reload_lost_models(self) -> None:
        """Restart Triton if it came back without a model that it had before, as can happen when memory is short."""
        server = self.supervised[0]
        if not server.has_responded or self._reloads >= MAX_RELOADS or self._control.lock.locked():
            return
        loaded, expected = self._triton_probe.list_loaded(), set(self._control.list_ensembles())
        if loaded and not expected <= loaded and not self._control.lock.locked():
            self._reloads += 1
            server.restart(f"could not load {', '.join(sorted(expected - loaded))}", self.stopping)

    def _follow_repository(self) -> None:
        """Let Triton serve what is published; a large model takes long to load, so on a thread of its own."""
        while not self.stopping.wait(WATCH_INTERVAL_S):
            self._control.look()

    def stop(self) -> None:
        """Stop the gateway, which completes the requests in flight, then Triton."""
        for supervised in reversed(self.supervised):
            supervised.process.stop(self.settings.grace_s)
        kill_programs_of(self.backends)
        self._control.close()

    def start_triton(self) -> ChildProcess:
        """Start the embedded Triton, after removing what dead ones left: stubs and shared memory."""
        settings = self.settings
        with self._control.lock:  # until a change of its models that it did not survive is undone
            pass
        if orphans := kill_programs_of(self.backends):
            log.warning("killed %d processes that an earlier Triton left behind", orphans)
        remove_dead_regions()
        command = triton.server_command(
            self.served_folder,
            self.backends,
            settings.triton_grpc_port,
            settings.triton_metrics_port,
            settings.triton_address.removesuffix(f":{settings.triton_grpc_port}"),
        )
        if settings.native_backend is None:
            command.append(triton.engine_flag())
        return self._start_process("Triton", command, triton.server_environment(), "triton.log")

    def start_gateway(self) -> ChildProcess:
        """Start the gateway."""
        command = [sys.executable, "-m", "gateway"]
        return self._start_process("gateway", command, gateway_environment(self.settings), "gateway.log")

    def _start_process(self, name: str, command: list[str], environment: dict[str, str], log_name: str) -> ChildProcess:
        log_path = self.settings.build_dir / "logs" / log_name
        rotate_log(log_path, self.settings.log_max_bytes, self.settings.log_backups)
        return ChildProcess(name, command, environment, log_path)


def gateway_environment(settings: LauncherSettings) -> dict[str, str]:
    """Return the gateway's environment: its own settings are inherited, the launcher's ports are set."""
    return {
        **child_environment(),
        "HOST": settings.host,
        "GATEWAY_PORT": str(settings.gateway_port),
        "TRITON_URL": settings.triton_address,
        "TRITON_METRICS_URL": f"http://127.0.0.1:{settings.triton_metrics_port}/metrics",
    }
