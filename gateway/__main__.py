"""Runs the gateway: `python -m gateway`."""

import gc
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
from gateway.core.metrics import MULTIPROCESS_DIR
from gateway.core.token_ids import TokenIdSettingsError, build_token_id_policy
from gateway.edge.connections import raise_descriptor_limit
from gateway.settings import Settings


def build_app() -> FastAPI:
    """Return the application of one worker process, with settings from the environment."""
    settings = Settings()
    configure_logging(settings.log_level)
    raise_descriptor_limit()
    app = create_app(settings)
    gc.collect()
    gc.freeze()  # collections need not visit the libraries' objects, which live as long as the process
    return app


def configure_logging(level: str) -> None:
    """Log to standard error, one line per record, from this level up."""
    # Looking up threads, processes and source lines costs more than the line itself, and no line shows them: see the
    # chapter "Optimization" of the logging documentation.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")


def exit_cleanly(signal_number: int, frame: FrameType | None) -> None:
    """Exit with status 0: once its requests are done, uvicorn raises the signal that stopped it again."""
    sys.exit(0)


def main() -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    try:
        settings = Settings()
        # Both only for their errors: a worker that fails to start would be restarted for ever.
        build_token_id_policy(settings)
        build_access(settings)
    except (AccessSettingsError, TokenIdSettingsError) as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("\n".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    signal.signal(signal.SIGTERM, exit_cleanly)
    signal.signal(signal.SIGINT, exit_cleanly)
    if settings.workers == 1:
        serve(settings)
        return
    with tempfile.TemporaryDirectory(prefix="tessera-metrics-") as folder:
        # prometheus_client reads it on import, so it is set before the workers start.
        os.environ[MULTIPROCESS_DIR] = folder
        serve(settings)


def serve(settings: Settings) -> None:
    """Serve until a signal arrives."""
    uvicorn.run(
        "gateway.__main__:build_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="gateway.edge.protocol:HttpProtocol",
        ws="none",
        timeout_keep_alive=settings.idle_timeout_s,  # type: ignore[arg-type]  # seconds, for a timer
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # ContextMiddleware reads them
        timeout_graceful_shutdown=int(settings.grace_s) or 1,
    )


if __name__ == "__main__":
    main()
