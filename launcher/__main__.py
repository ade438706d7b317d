"""`python -m launcher`: everything up, supervised, and down again on Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from types import FrameType

from pydantic import ValidationError

from launcher.errors import LauncherError
from launcher.models import prepare_repository
from launcher.ports import check_port_free
from launcher.settings import LauncherSettings
from launcher.supervisor import Supervisor

log = logging.getLogger("launcher")

READY = """
Ready in {elapsed:.1f} s: http://{host}:{port}  ({models})
Triton: gRPC 127.0.0.1:{grpc_port}, metrics 127.0.0.1:{metrics_port}; logs in {logs}

Try:
{curl}

Ctrl-C stops everything."""
CURL = """curl http://{host}:{port}/v1/embeddings -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "input": "Hello, world"}}'"""


def main() -> int:
    """Serve until told to stop; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        serve(LauncherSettings(), stopping)
    except ValidationError as error:
        wrong = "; ".join(f"{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors())
        log.error("error: %s", wrong)
        return 2
    except LauncherError as error:
        log.error("error: %s", error)
        return 1
    return 0


def serve(settings: LauncherSettings, stopping: threading.Event) -> None:
    """Prepare, start, supervise, stop.

    Raises:
        LauncherError: Something keeps the service from starting.
    """
    started = time.monotonic()
    check_port_free(settings.host, settings.gateway_port, "GATEWAY_PORT")
    check_port_free("127.0.0.1", settings.triton_grpc_port, "TRITON_GRPC_PORT")
    check_port_free("127.0.0.1", settings.triton_metrics_port, "TRITON_METRICS_PORT")
    models = prepare_repository(settings)
    supervisor = Supervisor(settings, stopping)
    try:
        supervisor.start()
        if not stopping.is_set():
            log.info("%s", describe(settings, models, time.monotonic() - started))
        supervisor.run()
    finally:
        log.info("stopping")
        supervisor.stop()


def describe(settings: LauncherSettings, models: tuple[str, ...], elapsed_s: float) -> str:
    """Say where everything listens and what to try first."""
    address = {"host": settings.host, "port": settings.gateway_port}
    return READY.format(
        **address,
        elapsed=elapsed_s,
        curl=CURL.format(**address, model=models[0] if models else "MODEL"),
        grpc_port=settings.triton_grpc_port,
        metrics_port=settings.triton_metrics_port,
        logs=settings.build_dir / "logs",
        models=", ".join(models),
    )


if __name__ == "__main__":
    sys.exit(main())
