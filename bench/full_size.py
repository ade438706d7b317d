"""The flagship at its real size, on this machine: `python -m bench.full_size`.

A checkpoint of random weights with the real 1.7 billion parameters is exported in each precision and served alone. It
receives a short query, a one-tile image, a seven-tile page and a passage at the served limit. The report lists times,
and the peak memory of each process.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from bench.servers import Service, name_service_process, post_json, run_service
from bench.settings import BUILD_DIR, BenchSettings
from bench.workloads import make_data_url
from launcher.models import run_module

log = logging.getLogger("bench.full_size")

PUBLIC_ID = "tiny/full-size"
PRECISIONS = ("fp32", "int8")
RESPONSE_TIMEOUT_S = 900.0
GIB = 1024**3


def main() -> int:
    """Measure each precision, exporting what is missing, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="default: all, one after the other")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIR / "full_size", help="takes up about 15 GB")
    options = parser.parse_args()
    os.environ["GATEWAY_REQUEST_TIMEOUT_S"] = str(RESPONSE_TIMEOUT_S)
    figures = {name: measure(name, options.build_dir.resolve()) for name in options.precision or PRECISIONS}
    path = options.build_dir / "results.json"
    path.write_text(json.dumps(figures, indent=2))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(precision: str, build_dir: Path) -> dict[str, Any]:
    """Export and serve one precision.

    Returns:
        Seconds and tokens of each response, and peak memory by process in GiB.
    """
    settings = replace(BenchSettings(), build_dir=build_dir / precision)
    figures: dict[str, Any] = {}
    if not settings.repository.exists():
        figures["export"] = export(build_dir / "checkpoint", settings.repository, precision)
    with run_service(settings, PUBLIC_ID) as service:
        figures["answers"] = {name: send_request(service, body) for name, body in make_requests().items()}
        figures["peak_gib"] = read_peaks(service)
    return figures


def export(checkpoint: Path, repository: Path, precision: str) -> dict[str, float]:
    """Export the checkpoint, writing it first if necessary; return seconds and the largest process in GiB."""
    if not checkpoint.exists():
        run_module("export.tiny_checkpoint", str(checkpoint), "--full-size", "--dtype", "bfloat16")
    started = time.monotonic()
    options = ["--name", PUBLIC_ID, "--precision", precision, "--repository", str(repository)]
    run_module("export", str(checkpoint), *options)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": round(time.monotonic() - started, 1), "peak_gib": round(peak_kib * 1024 / GIB, 2)}


def make_requests() -> Mapping[str, dict[str, Any]]:
    """Return a body for each kind of request; the service truncates the passage to its limit."""
    return {
        "text query": {"input": "What is NVIDIA?", "input_type": "query"},
        "one-tile image": {"input": make_image_url(512, 512)},
        "seven-tile page": {"input": make_image_url(1275, 1650)},
        "longest passage": {"input": "word " * 20_000, "truncate": "END"},
    }


def make_image_url(width: int, height: int) -> str:
    """Return a random image, the same in every run, as a data URL."""
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "PNG")
    return make_data_url(file.getvalue(), "PNG")


def send_request(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """Send one request; return its seconds and tokens."""
    started = time.monotonic()
    response = post_json(service.url, {"model": PUBLIC_ID, **body}, RESPONSE_TIMEOUT_S)
    seconds = time.monotonic() - started
    norm = float(np.linalg.norm(response["data"][0]["embedding"]))
    log.info("%.1f s, %s, norm %.6f", seconds, response["usage"], norm)
    return {"seconds": round(seconds, 2), "tokens": response["usage"]["prompt_tokens"]}


def read_peaks(service: Service) -> dict[str, float]:
    """Return the peak resident memory of the service's processes, in GiB."""
    peaks: dict[str, float] = {}
    for process in psutil.Process(service.pid).children(recursive=True):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        name = name_service_process(process)
        peaks[name] = round(peaks.get(name, 0.0) + peak_kib * 1024 / GIB, 2)
    return peaks


if __name__ == "__main__":
    sys.exit(main())
