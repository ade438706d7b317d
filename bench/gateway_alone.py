"""The gateway in front of an engine that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.server import Server, free_ports, run_server
from bench.settings import PROJECT, BenchSettings
from launcher.settings import TEXT_MODEL


@contextmanager
def run_gateway_alone(repository: Path, settings: BenchSettings) -> Iterator[Server]:
    """Serve until the block ends.

    Args:
        repository: Whose models the engine pretends to serve.
        settings: Where the log goes.

    Raises:
        ServiceFailedError: The gateway does not start.
    """
    http_port, grpc_port = free_ports(2)
    environment = os.environ | {"GATEWAY_PORT": str(http_port), "TRITON_URL": f"127.0.0.1:{grpc_port}"}
    engine = subprocess.Popen(
        [sys.executable, "-m", "bench.instant_triton", str(repository), str(grpc_port)], cwd=PROJECT
    )
    url = f"http://127.0.0.1:{http_port}/v1/embeddings"
    probe = {"model": TEXT_MODEL, "input": "ready?"}
    log = settings.build_dir / "logs" / "gateway_alone.log"
    try:
        with run_server("the gateway", [sys.executable, "-m", "gateway"], environment, url, probe, log) as server:
            yield server
    finally:
        engine.terminate()
        engine.wait()
