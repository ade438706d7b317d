"""Serves good and bad requests side by side for a long time, and tells what the service has kept of them.

`python -m bench.soak` (`make soak`) takes half an hour and uses loopback only. The exit code is 1 if a vector was
wrong, a good request failed, or memory grew by more than a twentieth after the warm-up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench.errors import BenchError
from bench.faults import FaultyService, prepare_both_models
from bench.report import format_table
from bench.settings import BUILD_DIR
from bench.traffic import Traffic, make_bodies
from launcher.settings import STAND_IN, TEXT_MODEL

log = logging.getLogger("soak")

MAX_GROWTH = 0.05
MAX_DESCRIPTOR_GROWTH = 20
WARM_UP_SHARE = 0.2
SAMPLE_INTERVAL_S = 5.0
SAMPLES_COMPARED = 6
"""Medians of so many samples are compared: memory goes up and down with the requests in flight."""

BAD_PAUSE_S = 0.05

HEADER = ("measured", "after warm-up", "at the end", "verdict")


@dataclass(frozen=True)
class Sample:
    """What the service holds at one moment.

    Attributes:
        memory_bytes: Resident memory that is not shared, of all its processes.
        descriptors: Open files and sockets.
        shared_memory_bytes: Of its regions in `/dev/shm`.
        processes: Their number.
    """

    memory_bytes: int
    descriptors: int
    shared_memory_bytes: int
    processes: int


def take_sample(service: FaultyService) -> Sample:
    """Measure the service."""
    memory = descriptors = count = 0
    regions: set[tuple[int, int]] = set()
    shared = 0
    for process in [psutil.Process(service.launcher.pid), *service.processes()]:
        try:
            memory += process.memory_full_info().uss
            descriptors += process.num_fds()
            for name in os.listdir(f"/proc/{process.pid}/map_files"):
                status = os.stat(f"/proc/{process.pid}/map_files/{name}")
                is_region = "/dev/shm/" in os.readlink(f"/proc/{process.pid}/map_files/{name}")  # noqa: S108
                if is_region and (status.st_dev, status.st_ino) not in regions:
                    regions.add((status.st_dev, status.st_ino))
                    shared += status.st_blocks * 512
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
        count += 1
    return Sample(memory, descriptors, shared, count)


def bad_bodies(text_model: str, image_model: str) -> Iterator[bytes]:
    """Return bodies of requests that must be refused, one kind after the other, for ever."""
    broken = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
    bodies = [
        b"",
        b"{",
        b"[" * 10_000,
        json.dumps({"model": text_model, "input": ""}).encode(),
        json.dumps({"model": text_model, "input": "word " * 20_000}).encode(),
        json.dumps({"model": text_model, "input": ["x"] * 3000}).encode(),
        json.dumps({"model": text_model, "input": [10**9]}).encode(),
        json.dumps({"model": text_model, "input": "a", "dimensions": 7}).encode(),
        json.dumps({"model": "nobody/nothing", "input": "a"}).encode(),
        json.dumps({"model": image_model, "input": [broken] * 8}).encode(),
        json.dumps({"model": image_model, "input": "data:application/pdf;base64,JVBERi0xLjcK"}).encode(),
        json.dumps({"model": text_model, "input": broken}).encode(),
        json.dumps({"model": text_model, "input": "!" * 2_000_000}).encode(),
    ]
    return itertools.cycle(bodies)


class Vandal:
    """A client that sends requests which must be refused, and breaks connections, for as long as the block lasts.

    Args:
        url: URL of the service.
        bodies: What to send.

    Attributes:
        sent: Number of requests.
        answered: Number of those that got anything but a refusal.
    """

    def __init__(self, url: str, bodies: Iterator[bytes]) -> None:
        self._url = url
        self._bodies = bodies
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._refused, self._broken)]
        self.sent = self.answered = 0

    def __enter__(self) -> Vandal:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _refused(self) -> None:
        """Send bad requests."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._stopping.wait(BAD_PAUSE_S):
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{self._url}/v1/embeddings", next(self._bodies), headers)  # noqa: S310
            self.sent += 1
            try:
                with opener.open(request, timeout=60):
                    self.answered += 1
            except urllib.error.HTTPError as error:
                self.answered += error.code >= 500 and error.code != 503
            except OSError:
                continue

    def _broken(self) -> None:
        """Open connections and leave them: idle, with half a request, or before the response."""
        parts = urlsplit(self._url)
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        body = json.dumps({"model": TEXT_MODEL, "input": "I leave before the answer"}).encode()
        unfinished = head + b"Content-Length: 999\r\n\r\n{"
        starts = itertools.cycle([b"", head, unfinished, b"\x16\x03\x01", b"GET / HTTP/9\r\n\r\n"])
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        while not self._stopping.wait(BAD_PAUSE_S):
            for data in (next(starts), whole):
                try:
                    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as client:
                        client.sendall(data)
                except OSError:
                    continue


def median(samples: Sequence[Sample], name: str) -> float:
    """Return the median of a figure."""
    values = sorted(float(getattr(sample, name)) for sample in samples)
    return values[len(values) // 2]


def judge(before: Sequence[Sample], after: Sequence[Sample]) -> list[tuple[str, str, str, str]]:
    """Return a row of the table for each figure of the service; its verdict is `ok` or what is wrong."""
    rows = []
    for name, unit, divisor in (
        ("memory_bytes", "MiB of memory", 2**20),
        ("shared_memory_bytes", "MiB in /dev/shm", 2**20),
        ("descriptors", "descriptors", 1),
        ("processes", "processes", 1),
    ):
        first, last = median(before, name), median(after, name)
        allowed = first + MAX_DESCRIPTOR_GROWTH if name == "descriptors" else first * (1 + MAX_GROWTH)
        verdict = "ok" if last <= allowed else f"grew by {100 * (last / max(first, 1) - 1):.1f} %"
        rows.append((unit, f"{first / divisor:.0f}", f"{last / divisor:.0f}", verdict))
    return rows


def soak(
    repository: Path, folder: Path, seconds: float, image_model: str = STAND_IN
) -> list[tuple[str, str, str, str]]:
    """Run the service under good and bad requests, and return the rows of the table.

    Raises:
        ServiceFailedError: It does not start.
    """
    service = FaultyService(repository, folder)
    service.start()
    samples: list[Sample] = []
    try:
        with ExitStack() as stack:
            traffic = stack.enter_context(Traffic(service.url, make_bodies(TEXT_MODEL, image_model)))
            vandal = stack.enter_context(Vandal(service.url, bad_bodies(TEXT_MODEL, image_model)))
            started_s = time.monotonic()
            warm_s = started_s + WARM_UP_SHARE * seconds
            while time.monotonic() < started_s + seconds:
                time.sleep(min(SAMPLE_INTERVAL_S, seconds / 40))
                if time.monotonic() > warm_s:
                    samples.append(take_sample(service))
                    log.info("%d good, %d bad requests; %s", len(traffic.outcomes), vandal.sent, samples[-1])
    finally:
        exit_code = service.stop()
    verdicts = [outcome.verdict for outcome in traffic.outcomes]
    wrong, refused = verdicts.count("wrong"), verdicts.count("refused")
    return [
        *judge(samples[:SAMPLES_COMPARED], samples[-SAMPLES_COMPARED:]),
        ("good requests", "", str(len(verdicts)), f"{wrong} wrong, {refused} refused" if wrong + refused else "ok"),
        ("bad requests", "", str(vandal.sent), f"{vandal.answered} not refused" if vandal.answered else "ok"),
        ("exit code", "", str(exit_code), "ok" if exit_code == 0 else "not 0"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the table, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--repository", type=Path, help="model repository with both models of make serve")
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long (default: half an hour)")
    parsed = parser.parse_args(arguments)
    try:
        repository = parsed.repository or prepare_both_models()
    except BenchError as error:
        log.error("error: %s", error)
        return 1
    rows = soak(repository, BUILD_DIR / "soak", parsed.seconds)
    sys.stdout.write(format_table(HEADER, [list(row) for row in rows]) + "\n")
    return int(any(verdict != "ok" for *_, verdict in rows))


if __name__ == "__main__":
    sys.exit(main())
