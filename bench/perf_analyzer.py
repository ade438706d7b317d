"""Triton's own load tool: the binary out of an older `tritonclient` wheel, with libraries of the embedded Triton."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError, LoadFailedError
from launcher.triton import find_wheel

REQUIREMENT = "tritonclient==2.50.0"
"""The last release whose wheel carries the binary."""

MEMBER = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
LIBRARIES = ("libb64.so.0d", "libcudart.so.12")
"""What it links to beyond a plain Linux; `nvidia_pytriton.libs` has both under names with hashes."""

MIN_WINDOWS = 3
"""The tool measures so many windows at least."""

STABILITY_PERCENT = "999"
"""Rounds are ours: a tool that measures until its windows agree would measure each contender for another time."""


WINDOW_TOO_SHORT = ("use a larger time window", "Failed to obtain stable measurement")
"""What the tool says when a window held no answer, or so few that not even our tolerance is met."""


class PerfAnalyzerMissingError(BenchError):
    """The binary or its libraries cannot be had."""


class WindowTooShortError(LoadFailedError):
    """Too few requests were answered within one of the tool's windows."""


def prepare_perf_analyzer(folder: Path) -> Path:
    """Return the folder that holds `perf_analyzer` and links to its libraries, made if it is not there.

    Raises:
        PerfAnalyzerMissingError: pip does not get the wheel, or the embedded Triton lacks a library.
    """
    binary = folder / "perf_analyzer"
    if binary.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        link_library(library, folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download_wheel(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(MEMBER, scratch))
        extracted.chmod(0o755)
        extracted.replace(binary)
    return folder


def download_wheel(folder: Path) -> Path:
    """Download the wheel, uninstalled: the environment has a newer client.

    Raises:
        PerfAnalyzerMissingError: pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    finished = subprocess.run(
        [*command, "--dest", str(folder), REQUIREMENT], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if finished.returncode or not wheels:
        raise PerfAnalyzerMissingError(f"pip cannot download {REQUIREMENT}: {finished.stderr.strip()[-500:]}")
    return wheels[0]


def link_library(name: str, folder: Path) -> None:
    """Link a library of the embedded Triton under the name that the binary asks for.

    Raises:
        PerfAnalyzerMissingError: It is not there.
    """
    stem, _, version = name.partition(".so.")
    found = sorted((find_wheel().parent / "nvidia_pytriton.libs").glob(f"{stem}-*.so.{version}*"))
    if not found:
        raise PerfAnalyzerMissingError(f"the embedded Triton carries no {name}")
    link = folder / name
    link.unlink(missing_ok=True)
    link.symlink_to(found[0])


def run_perf_analyzer(
    folder: Path,
    model: str,
    address: str,
    requests: Sequence[Mapping[str, Sequence[str]]],
    concurrency: int,
    window_s: float,
) -> dict[str, float]:
    """Keep as many gRPC requests in flight as `concurrency` says, for a while.

    Args:
        folder: What `prepare_perf_analyzer` has returned.
        model: A Triton model.
        address: Of Triton's gRPC, host and port.
        requests: Tensor name to the texts of one request; sent in turn.
        concurrency: Requests in flight.
        window_s: Length of one of its windows.

    Returns:
        The tool's own columns, times in microseconds.

    Raises:
        WindowTooShortError: Too few requests were answered within a window.
        LoadFailedError: It ends with an error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data, table = Path(scratch, "data.json"), Path(scratch, "table.csv")
        data.write_text(json.dumps({"data": [as_tensors(request) for request in requests]}))
        command = [str(folder / "perf_analyzer"), "-m", model, "-u", address, "-i", "grpc", "--async"]
        command += ["--input-data", str(data), "--concurrency-range", str(concurrency), "-f", str(table)]
        command += ["--measurement-interval", str(round(window_s * 1e3)), "--max-trials", str(MIN_WINDOWS)]
        command += ["--stability-percentage", STABILITY_PERCENT]
        environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if any(sign in finished.stdout + finished.stderr for sign in WINDOW_TOO_SHORT):
            raise WindowTooShortError(f"too few answers within {window_s:.1f} s")
        if not table.exists():
            raise LoadFailedError(f"perf_analyzer failed: {(finished.stderr or finished.stdout).strip()[-500:]}")
        [columns] = csv.DictReader(table.read_text().splitlines())
    return {name: float(value) for name, value in columns.items() if value}


def as_tensors(request: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Return a request in the tool's words; the leading 1 of the shapes is Triton's batch and left out."""
    return {name: {"content": list(values), "shape": [len(values)]} for name, values in request.items()}
