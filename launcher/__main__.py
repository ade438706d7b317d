"""`python -m launcher`: prepares the models, serves them, and stops on Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType

import psutil
from pydantic import ValidationError

from launcher.errors import LauncherError, PortTakenError, TooFewDescriptorsError
from launcher.models import prepare_repository
from launcher.settings import LauncherSettings
from launcher.shared_memory import check_room, remove_dead_regions
from launcher.supervisor import Supervisor
from launcher.triton import prepare_socket

log = logging.getLogger("launcher")

SECOND_SIGNAL_S = 0.5
"""Signals closer together count as one: `make` passes on what its process group has received as well."""

MIN_DESCRIPTORS = 128
"""Triton and the gateway each take some dozens before there is any client."""

READY = """
Ready in {elapsed:.1f} s: http://{host}:{port}
{models}
Triton: gRPC {grpc_address}, metrics 127.0.0.1:{metrics_port}; logs in {logs}

Try:
{curl}

Ctrl-C stops everything, and a second one at once."""

LIMIT = "  {model}: up to {tokens} tokens; longer input is refused unless truncated (GATEWAY_TRUNCATE=END)"

CURL = """curl http://{host}:{port}/v1/embeddings -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "input": "Hello, world"}}'"""


def main() -> int:
    """Serve until a signal arrives and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    stopping = threading.Event()

    first_signal_s = math.inf

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal first_signal_s
        if time.monotonic() - first_signal_s > SECOND_SIGNAL_S:
            force_exit()
        if not stopping.is_set():
            first_signal_s = time.monotonic()
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        serve(LauncherSettings(), stopping)
    except ValidationError as error:
        details = "; ".join(f"{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors())
        log.error("error: %s", details)
        return 2
    except LauncherError as error:
        log.error("error: %s", error)
        return 1
    return 0


def serve(settings: LauncherSettings, stopping: threading.Event) -> None:
    """Prepare the repository, start the service and supervise it until it is stopped.

    Raises:
        LauncherError: The service cannot start.
    """
    started = time.monotonic()
    check_descriptors()
    check_port_free(settings.host, settings.gateway_port, "GATEWAY_PORT")
    if settings.triton_socket:
        prepare_socket(settings.triton_socket)
    else:
        check_port_free("127.0.0.1", settings.triton_grpc_port, "TRITON_GRPC_PORT")
    check_port_free("127.0.0.1", settings.triton_metrics_port, "TRITON_METRICS_PORT")
    models = prepare_repository(settings)
    remove_dead_regions()
    supervisor = Supervisor(settings, models, stopping)
    check_room(supervisor.served_folder)
    try:
        supervisor.start()
        if not stopping.is_set():
            log.info("%s", describe_service(settings, models.limits, time.monotonic() - started))
        supervisor.run()
    finally:
        log.info("stopping")
        supervisor.stop()


def force_exit() -> None:
    """Kill every process that descends from this one, and exit at once, with status 1."""
    log.info("a second signal: killing everything")
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(1)


def check_descriptors() -> None:
    """Check that Triton and the gateway may open enough files and connections.

    Raises:
        TooFewDescriptorsError: They may not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < MIN_DESCRIPTORS:
        raise TooFewDescriptorsError(limit, MIN_DESCRIPTORS)


def check_port_free(host: str, port: int, variable: str) -> None:
    """Check that a port is free by binding it.

    Args:
        host: Address to bind.
        port: TCP port.
        variable: Setting to name in the error.

    Raises:
        PortTakenError: Another process listens on the port.
        LauncherError: The host name cannot be resolved.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise LauncherError(f"{host} cannot be resolved: set HOST to an address of this machine") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise PortTakenError(host, port, variable) from error


def describe_service(settings: LauncherSettings, models: Mapping[str, int], elapsed_s: float) -> str:
    """Return what is shown once the service is ready: models and their limits, ports, and a request to try.

    Args:
        settings: Where the service listens.
        models: The longest input of each model, in tokens.
        elapsed_s: How long the start took.
    """
    address = {"host": settings.host, "port": settings.gateway_port}
    return READY.format(
        **address,
        elapsed=elapsed_s,
        curl=CURL.format(**address, model=next(iter(models), "MODEL")),
        grpc_address=settings.triton_address,
        metrics_port=settings.triton_metrics_port,
        logs=settings.build_dir / "logs",
        models="\n".join(LIMIT.format(model=model, tokens=tokens) for model, tokens in models.items()),
    )


if __name__ == "__main__":
    sys.exit(main())
