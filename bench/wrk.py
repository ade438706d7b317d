"""An HTTP load generator that is not the bottleneck: wrk, driven by `requests.lua`."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import LoadFailedError, ToolMissingError

SCRIPT = Path(__file__).with_name("requests.lua")
ANSWER_TIMEOUT_S = 60


@dataclass(frozen=True)
class WrkReport:
    """What wrk saw.

    Attributes:
        requests: Answers received within the time.
        seconds: How long it ran.
        p50_ms: Median time of an answer.
        p99_ms: 99th percentile of the same.
        mean_ms: Mean of the same.
        statuses: Answers other than 2xx and 3xx.
        broken: Connections and answers that failed otherwise.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    mean_ms: float
    statuses: int
    broken: int


def find_wrk() -> str:
    """Return the program's path.

    Raises:
        ToolMissingError: It is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise ToolMissingError("wrk", "apt-get install wrk, or https://github.com/wg/wrk")
    return path


def run_wrk(url: str, bodies: Path, concurrency: int, seconds: float) -> WrkReport:
    """Keep as many requests in flight as `concurrency` says, for a while.

    Args:
        url: Where to POST.
        bodies: File with one JSON body a line, sent in turn.
        concurrency: Connections, each with one request at a time.
        seconds: How long; wrk knows whole seconds only.

    Raises:
        LoadFailedError: wrk ends with an error.
    """
    command = [find_wrk(), "--threads", "1", "--connections", str(concurrency)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{ANSWER_TIMEOUT_S}s"]
    command += ["--script", str(SCRIPT), url, "--", str(bodies)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    if finished.returncode or not lines:
        raise LoadFailedError(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    return WrkReport(**json.loads(lines[-1]))
