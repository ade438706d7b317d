"""The whole service as `make serve` starts it, on ports of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.server import free_ports, run_server
from bench.settings import BenchSettings
from launcher.settings import TEXT_MODEL

STEPS = ("preprocess_text", "preprocess_image", "vision_encoder", "embedder")
"""Endings of the names of Triton's models (docs/contract.md)."""


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        url: The gateway's embeddings route.
        grpc_address: Triton's, host and port.
        pid: The launcher.
    """

    url: str
    grpc_address: str
    pid: int


@contextmanager
def run_service(settings: BenchSettings, model: str = TEXT_MODEL) -> Iterator[Service]:
    """Serve the measured repository through the launcher until the block ends.

    Args:
        settings: Where the repository is.
        model: A public id in it, to be asked until it answers.

    Raises:
        ServiceFailedError: It does not start.
    """
    http_port, grpc_port, metrics_port = free_ports(3)
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
        yield Service(url, f"127.0.0.1:{grpc_port}", server.pid)


def name_process(process: psutil.Process) -> str:
    """Say which part of the service a process is: gateway, triton, a backend's name, or launcher."""
    words = process.cmdline()
    if "gateway" in words or "multiprocessing" in " ".join(words):
        return "gateway"
    names = {Path(word).name for word in words}
    if "tritonserver" in names:
        return "triton"
    if "triton_python_backend_stub" in names:
        return name_step(Path(words[1]).parents[1].name)
    return "decode" if "preprocess.decode_worker" in words else "launcher"


def name_step(model: str) -> str:
    """Return what a Triton model is of the model it belongs to: `minilm_embedder` is an `embedder`."""
    return next((step for step in STEPS if model.endswith(step)), model)
