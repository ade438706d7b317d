"""The flagship's real widths on this machine: `python -m bench.full_size`.

A checkpoint of random weights and the real 1.7 billion parameters is exported in each precision, served on its own, and
asked for a short query, a one-tile image, a seven-tile page, and a passage at the served limit. What is reported is
time and memory, the peaks of every process that took part.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from bench.service import Service, name_process, run_service
from bench.settings import BUILD_DIR, BenchSettings

log = logging.getLogger("bench.full_size")

PUBLIC_ID = "tiny/full-size"
PRECISIONS = ("fp32", "int8")
ANSWER_LIMIT_S = 900.0
GIB = 1024**3


def main() -> int:
    """Export what is not there yet, serve and measure each precision; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all, one after the other")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIR / "full_size", help="holds some 15 GB afterwards")
    options = parser.parse_args()
    os.environ["GATEWAY_REQUEST_TIMEOUT_S"] = str(ANSWER_LIMIT_S)
    figures = {name: measure(name, options.build_dir.resolve()) for name in options.precision or PRECISIONS}
    path = options.build_dir / "results.json"
    path.write_text(json.dumps(figures, indent=2))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(precision: str, build_dir: Path) -> dict[str, Any]:
    """Export and serve one precision.

    Returns:
        Seconds of each answer, tokens, and peaks of memory in GiB by process.
    """
    settings = replace(BenchSettings(), build_dir=build_dir / precision)
    figures: dict[str, Any] = {}
    if not settings.repository.exists():
        figures["export"] = export(build_dir / "checkpoint", settings.repository, precision)
    with run_service(settings, PUBLIC_ID) as service:
        figures["answers"] = {name: ask(service, body) for name, body in make_requests().items()}
        figures["peak_gib"] = read_peaks(service)
    return figures


def export(checkpoint: Path, repository: Path, precision: str) -> dict[str, float]:
    """Write the checkpoint unless it is there, and export it; return seconds and the largest process in GiB."""
    if not checkpoint.exists():
        run_module("export.tiny_checkpoint", str(checkpoint), "--full-size", "--dtype", "bfloat16")
    started = time.monotonic()
    options = ["--name", PUBLIC_ID, "--precision", precision, "--repository", str(repository)]
    run_module("export", str(checkpoint), *options)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": round(time.monotonic() - started, 1), "peak_gib": round(peak_kib * 1024 / GIB, 2)}


def run_module(*command: str) -> None:
    """Run a module of this project."""
    subprocess.run([sys.executable, "-m", *command], check=True)


def make_requests() -> Mapping[str, dict[str, Any]]:
    """Return a body for each kind of request; the passage is cut to the served limit."""
    return {
        "text query": {"input": "What is NVIDIA?", "input_type": "query"},
        "one-tile image": {"input": picture(512, 512)},
        "seven-tile page": {"input": picture(1275, 1650)},
        "longest passage": {"input": "word " * 20_000, "truncate": "END"},
    }


def picture(width: int, height: int) -> str:
    """Return a seeded picture as a data URL."""
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def ask(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """Send one request; return its seconds and tokens."""
    started = time.monotonic()
    response = httpx.post(service.url, json={"model": PUBLIC_ID, **body}, timeout=ANSWER_LIMIT_S)
    seconds = time.monotonic() - started
    response.raise_for_status()
    answer = response.json()
    length = float(np.linalg.norm(answer["data"][0]["embedding"]))
    log.info("%.1f s, %s, length of the vector %.6f", seconds, answer["usage"], length)
    return {"seconds": round(seconds, 2), "tokens": answer["usage"]["prompt_tokens"]}


def read_peaks(service: Service) -> dict[str, float]:
    """Return the largest resident memory that each process has had, in GiB."""
    peaks: dict[str, float] = {}
    for process in psutil.Process(service.pid).children(recursive=True):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        name = name_process(process)
        peaks[name] = round(peaks.get(name, 0.0) + peak_kib * 1024 / GIB, 2)
    return peaks


if __name__ == "__main__":
    sys.exit(main())
