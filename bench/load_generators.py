"""Load generators: wrk for HTTP, perf_analyzer for Triton's gRPC.

wrk runs `requests.lua`. perf_analyzer comes from the wheel of an older `tritonclient` and links to libraries of the
embedded Triton.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InstallError, LoadFailedError, ToolMissingError, WindowTooShortError
from launcher.triton import find_wheel

WRK_SCRIPT = Path(__file__).with_name("requests.lua")
RESPONSE_TIMEOUT_S = 60

# The last version whose wheel contains perf_analyzer.
PERF_ANALYZER_REQUIREMENT = "tritonclient==2.50.0"
PERF_ANALYZER_MEMBER = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
# What it links to beyond a plain Linux; `nvidia_pytriton.libs` has both, with a hash in their names.
PERF_ANALYZER_LIBRARIES = ("libb64.so.0d", "libcudart.so.12")

# perf_analyzer measures at least this many windows.
MIN_WINDOWS = 3
# The benchmark repeats measurements itself. If the tool measured until its windows agreed, each contender would be
# measured for a different length of time.
STABILITY_PERCENT = "999"
# Output when a window contained no response, or too few to meet even that tolerance.
WINDOW_TOO_SHORT = ("use a larger time window", "Failed to obtain stable measurement")

MAX_ERROR_CHARS = 500


@dataclass(frozen=True)
class WrkReport:
    """Result of a wrk run.

    Attributes:
        requests: Responses received in time.
        seconds: Length of the run.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
        statuses: Responses with a status other than 2xx and 3xx.
        broken: Connections and responses that failed in another way.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: int
    broken: int


def run_wrk(url: str, bodies: Path, concurrency: int, seconds: float) -> WrkReport:
    """Keep a number of POST requests in flight for a while.

    Args:
        url: URL to POST to.
        bodies: File with one JSON body per line, sent in turn.
        concurrency: Number of connections, each with one request at a time.
        seconds: Length of the run; wrk rounds it to whole seconds.

    Raises:
        ToolMissingError: The program wrk is not installed.
        LoadFailedError: The program wrk ends with an error.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise ToolMissingError("wrk", "apt-get install wrk, or https://github.com/wg/wrk")
    command = [wrk, "--threads", "1", "--connections", str(concurrency)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{RESPONSE_TIMEOUT_S}s"]
    command += ["--script", str(WRK_SCRIPT), url, "--", str(bodies)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    if finished.returncode or not lines:
        output = finished.stderr.strip() or finished.stdout.strip()
        raise LoadFailedError(f"wrk ended with status {finished.returncode}: {output[-MAX_ERROR_CHARS:]}")
    return WrkReport(**json.loads(lines[-1]))


def prepare_perf_analyzer(folder: Path) -> Path:
    """Install perf_analyzer and links to its libraries into a folder, unless they are there.

    Returns:
        The folder.

    Raises:
        InstallError: The wheel cannot be downloaded, or the embedded Triton lacks a library.
    """
    binary = folder / "perf_analyzer"
    if binary.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for library in PERF_ANALYZER_LIBRARIES:
        _link_library(library, folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download_wheel(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(PERF_ANALYZER_MEMBER, scratch))
        extracted.chmod(0o755)
        extracted.replace(binary)
    return folder


def run_perf_analyzer(
    folder: Path,
    model: str,
    address: str,
    requests: Sequence[Mapping[str, Sequence[str]]],
    concurrency: int,
    window_s: float,
) -> dict[str, float]:
    """Keep a number of gRPC requests in flight for a while.

    Args:
        folder: Folder returned by `prepare_perf_analyzer`.
        model: Name of a Triton model.
        address: Host and port of Triton's gRPC.
        requests: Texts of each request by tensor name; sent in turn.
        concurrency: Number of requests in flight.
        window_s: Length of one of perf_analyzer's windows.

    Returns:
        The columns of perf_analyzer, times in microseconds.

    Raises:
        WindowTooShortError: Too few requests completed within a window.
        LoadFailedError: The program perf_analyzer ends with an error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data, table = Path(scratch, "data.json"), Path(scratch, "table.csv")
        data.write_text(json.dumps({"data": [_make_tensors(request) for request in requests]}))
        command = [str(folder / "perf_analyzer"), "-m", model, "-u", address, "-i", "grpc", "--async"]
        command += ["--input-data", str(data), "--concurrency-range", str(concurrency), "-f", str(table)]
        command += ["--measurement-interval", str(round(window_s * 1e3)), "--max-trials", str(MIN_WINDOWS)]
        command += ["--stability-percentage", STABILITY_PERCENT]
        environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if any(sign in finished.stdout + finished.stderr for sign in WINDOW_TOO_SHORT):
            raise WindowTooShortError(f"too few responses within {window_s:.1f} s")
        if not table.exists():
            message = (finished.stderr or finished.stdout).strip()[-MAX_ERROR_CHARS:]
            raise LoadFailedError(f"perf_analyzer failed: {message}")
        [columns] = csv.DictReader(table.read_text().splitlines())
    return {name: float(value) for name, value in columns.items() if value}


def _download_wheel(folder: Path) -> Path:
    # Downloaded but not installed: the environment has a newer client.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), PERF_ANALYZER_REQUIREMENT]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode or not wheels:
        message = finished.stderr.strip()[-MAX_ERROR_CHARS:]
        raise InstallError(f"pip cannot download {PERF_ANALYZER_REQUIREMENT}: {message}")
    return wheels[0]


def _link_library(name: str, folder: Path) -> None:
    """Link a library of the embedded Triton under the name that perf_analyzer expects."""
    stem, _, version = name.partition(".so.")
    found = sorted((find_wheel().parent / "nvidia_pytriton.libs").glob(f"{stem}-*.so.{version}*"))
    if not found:
        raise InstallError(f"the embedded Triton does not contain {name}")
    link = folder / name
    link.unlink(missing_ok=True)
    link.symlink_to(found[0])


def _make_tensors(request: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Return a request in perf_analyzer's format; the shapes omit the leading 1, which is Triton's batch dimension."""
    return {name: {"content": list(values), "shape": [len(values)]} for name, values in request.items()}
