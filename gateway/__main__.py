"""Serves the gateway: `python -m gateway`."""

import logging
import os
import signal
import sys
import tempfile
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from gateway.access import AccessSettingsError, build_access
from gateway.app import create_app
from gateway.metrics import MULTIPROCESS_DIR
from gateway.settings import Settings

KEEP_ALIVE_S = 75
"""Longer than clients and proxies keep idle connections, so that they close them and no request meets a closing one."""


def build_app() -> FastAPI:
    """The application of one worker process, with settings from the environment."""
    settings = Settings()
    configure_logging(settings.log_level)
    return create_app(settings)


def configure_logging(level: str) -> None:
    """Sends one line per record to standard error.

    Args:
        level: least severe level written.
    """
    # Nothing we write names threads, processes or source lines, and looking them up costs more than the line itself:
    # the logging documentation's chapter "Optimization".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")


def exit_cleanly(signal_number: int, frame: FrameType | None) -> None:
    """Ends the process with status 0: uvicorn, done with its requests, raises the signal that stopped it once more."""
    sys.exit(0)


def main() -> None:
    """Reads the settings and serves until SIGTERM or SIGINT."""
    try:
        settings = Settings()
        build_access(settings)  # once for its errors: a worker that fails to start is started again and again
    except AccessSettingsError as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("\n".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    signal.signal(signal.SIGTERM, exit_cleanly)
    signal.signal(signal.SIGINT, exit_cleanly)
    if settings.workers == 1:
        serve(settings)
        return
    with tempfile.TemporaryDirectory(prefix="tessera-metrics-") as folder:
        # Read when prometheus_client is imported, so it is set before the workers start.
        os.environ[MULTIPROCESS_DIR] = folder
        serve(settings)


def serve(settings: Settings) -> None:
    """Serves until a signal comes."""
    uvicorn.run(
        "gateway.__main__:build_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_s) or 1,
    )


if __name__ == "__main__":
    main()
