"""Faults to inject into a running service: killed and stopped processes, a full `/dev/shm`, damaged models."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench.errors import BenchError, ServiceFailedError
from bench.servers import find_free_ports, name_service_process
from bench.settings import PROJECT
from bench.traffic import read_status
from launcher.errors import LauncherError
from launcher.models import prepare_repository
from launcher.settings import LauncherSettings

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


def prepare_both_models() -> Path:
    """Export the models of `make serve`, unless they have been, and return their repository.

    Raises:
        BenchError: They cannot be exported.
    """
    try:
        return prepare_repository(LauncherSettings(repository=None, model=None)).repository
    except LauncherError as error:
        raise BenchError(str(error)) from error


class FaultyService:
    """The service, as `make serve` starts it, on the same ports each time that it is started.

    Args:
        repository: Model repository.
        build_dir: Folder for logs.
        prefix: Words in front of the launcher's command.
        settings: Further environment variables.
    """

    def __init__(
        self, repository: Path, build_dir: Path, prefix: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        self._command = [*prefix, sys.executable, "-m", "launcher"]
        ports = map(str, find_free_ports(3))
        names = ("GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
        self._environment = os.environ | dict(zip(names, ports, strict=True))
        self._environment |= {"REPOSITORY": str(repository), "BUILD_DIR": str(build_dir)} | dict(settings or {})
        self.log = build_dir / "launcher.log"
        self.url = f"http://127.0.0.1:{self._environment['GATEWAY_PORT']}"
        build_dir.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the service and wait until it is ready.

        Raises:
            ServiceFailedError: It ended, or was not ready in time.
        """
        with self.log.open("a") as output:
            self.launcher = subprocess.Popen(
                self._command, cwd=PROJECT, env=self._environment, stdout=output, stderr=output
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while read_status(f"{self.url}/v1/health/ready") != 200:
            if self.launcher.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise ServiceFailedError("the service", self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.1)

    def __enter__(self) -> Self:
        """Start the service; see `start`."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the service."""
        self.stop()

    def stop(self) -> int:
        """Stop the service by SIGTERM and return its exit code."""
        if self.launcher.poll() is None:
            self.launcher.send_signal(signal.SIGTERM)
        try:
            return self.launcher.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for process in [psutil.Process(self.launcher.pid), *self.processes()]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return self.launcher.wait()

    def processes(self) -> list[psutil.Process]:
        """Return every process that descends from the launcher."""
        return psutil.Process(self.launcher.pid).children(recursive=True)

    def find(self, role: str) -> psutil.Process:
        """Return a process by what it does: gateway, triton, decode, or a step of an ensemble."""
        for process in self.processes():
            with suppress(psutil.Error):
                if name_service_process(process) == role:
                    return process
        raise ServiceFailedError(role, self.log.read_text(errors="replace")[-2000:])


@dataclass(frozen=True)
class Fault:
    """A fault of a running service.

    Attributes:
        name: Name in the table.
        inject: Function that brings it about.
        max_recovery_s: Time within which every request has to succeed again, in seconds.
        spares_texts: Whether no text may be refused meanwhile.
    """

    name: str
    inject: Callable[[FaultyService], None]
    max_recovery_s: float = 15.0
    spares_texts: bool = False


def send(number: signal.Signals, role: str) -> Callable[[FaultyService], None]:
    """Return a function that sends a signal to the process with that role."""
    return lambda service: service.find(role).send_signal(number)


def stop_launcher_for_a_while(service: FaultyService) -> None:
    """Stop the launcher for some seconds."""
    service.launcher.send_signal(signal.SIGSTOP)
    time.sleep(5)
    service.launcher.send_signal(signal.SIGCONT)


def kill_launcher(service: FaultyService) -> None:
    """Kill the launcher, and start it again once all of its processes have ended, as an orchestrator would."""
    orphans = service.processes()
    service.launcher.kill()
    service.launcher.wait()
    psutil.wait_procs(orphans, timeout=STOP_TIMEOUT_S)
    service.start()


def crash_launcher_and_triton(service: FaultyService) -> None:
    """Kill everything at once, as the kernel does when memory is short; shared memory is left behind."""
    family = [psutil.Process(service.launcher.pid), *service.processes()]
    for process in family:
        process.kill()
    service.launcher.wait()
    psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    service.start()


FAULTS = (
    Fault("decoder killed", send(signal.SIGKILL, "decode"), spares_texts=True),
    Fault("decoder stopped", send(signal.SIGSTOP, "decode"), spares_texts=True),
    Fault("stub killed (tokenizer)", send(signal.SIGKILL, "preprocess_text")),
    Fault("stub stopped (embedder)", send(signal.SIGSTOP, "embedder")),
    Fault("stub stopped (image step)", send(signal.SIGSTOP, "preprocess_image")),
    Fault("gateway killed", send(signal.SIGKILL, "gateway")),
    Fault("gateway stopped", send(signal.SIGSTOP, "gateway")),
    Fault("Triton killed", send(signal.SIGKILL, "triton")),
    Fault("Triton stopped", send(signal.SIGSTOP, "triton")),
    Fault("launcher stopped for 5 s", stop_launcher_for_a_while, max_recovery_s=0.0, spares_texts=True),
    Fault("launcher killed, started again", kill_launcher, max_recovery_s=60.0),
    Fault("all processes killed, started again", crash_launcher_and_triton, max_recovery_s=60.0),
)


def damage_repository(repository: Path, target: Path, file: str) -> Path:
    """Copy a repository without one of its files, and return the copy.

    Args:
        repository: Intact repository.
        target: Folder to create; an existing one is replaced.
        file: Path of the file to leave out, relative to the repository.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(repository, target)
    (target / file).unlink()
    return target
