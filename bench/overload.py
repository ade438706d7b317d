"""Sends the service ten times the requests that it can serve, and tells how many it serves all the same.

`python -m bench.overload` (`make overload`) takes four minutes, uses loopback only and needs wrk. Requests of one
sentence, and then of a passage that fills the model's window, arrive at fixed times, whether or not earlier ones are
answered, from a process that shares this machine's processors with the service: what it used of them is in the table.
The exit code is 1 if goodput is below nine tenths of what the service serves at its best, if refusals take longer than
50 ms, or if anything but 200 and 503 is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bench.errors import BenchError
from bench.faults import FaultyService, prepare_both_models
from bench.load_generators import run_wrk
from bench.report import format_table
from bench.settings import BUILD_DIR
from launcher.settings import TEXT_MODEL

log = logging.getLogger("overload")

FACTOR = 10
MIN_GOODPUT = 0.9
MAX_REFUSAL_S = 0.05
"""For the median of refusals: the slowest show how long the client itself waits for a processor."""

CONNECTIONS = (16, 64, 128)
"""With which the best rate is looked for."""

ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 10))
"""Of the clients: each may have only so many connections."""

TICK_S = 0.005
WARM_UP_SHARE = 0.3
ANSWER_TIMEOUT_S = 60.0

SENTENCE = "A man is eating food in a small cafe by the sea. "
TEXTS = {"a sentence": SENTENCE, "a passage": 20 * SENTENCE}
"""Of 13 tokens, and of more than the 256 that the model takes."""


@dataclass
class Arrivals:
    """What became of requests that arrived at fixed times.

    Attributes:
        sent: Number of requests.
        answers: Of each answered one its status, and when it was sent and answered, in seconds from the start.
        cpu_share: What the client used of one processor.
        max_lag_s: How late it sent requests at worst.
    """

    sent: int = 0
    answers: list[tuple[int, float, float]] = field(default_factory=list)
    cpu_share: float = 0.0
    max_lag_s: float = 0.0

    def list_times(self, status: int, after_s: float) -> list[float]:
        """Return how long the answers with a status took, of requests sent after a moment."""
        return [ended_s - sent_s for code, sent_s, ended_s in self.answers if code == status and sent_s >= after_s]

    def compute_goodput(self, from_s: float, to_s: float) -> float:
        """Return the requests served per second of an interval."""
        served = sum(status == 200 and from_s <= ended_s < to_s for status, _, ended_s in self.answers)
        return served / (to_s - from_s)


class OpenLoop:
    """Sends requests at fixed times over as many connections as that takes.

    Args:
        host: Of the service.
        port: Of the service.
        body: Of every request.
        rate: Requests per second.
    """

    def __init__(self, host: str, port: int, body: bytes, rate: float) -> None:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.idle: deque[HttpConnection] = deque()
        self.arrivals = Arrivals()
        self.started_s = time.monotonic()
        self.open = 0
        self._target = host, port
        self._rate = rate
        self._addresses = itertools.cycle(ADDRESSES)
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> Arrivals:
        """Send for some seconds, and wait for the answers."""
        cpu_s = time.process_time()
        self.started_s = time.monotonic()
        while (now_s := self.clock()) < seconds:
            due = int(now_s * self._rate)
            self.arrivals.max_lag_s = max(self.arrivals.max_lag_s, now_s - self.arrivals.sent / self._rate)
            for _ in range(due - self.arrivals.sent):
                self._send()
            self.arrivals.sent = due
            await asyncio.sleep(TICK_S)
        self.arrivals.cpu_share = (time.process_time() - cpu_s) / self.clock()
        while len(self.arrivals.answers) < self.arrivals.sent and self.clock() < seconds + ANSWER_TIMEOUT_S:
            await asyncio.sleep(0.1)
        for connection in self.idle:
            connection.close()
        return self.arrivals

    def clock(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started_s

    def _send(self) -> None:
        while self.idle:
            connection = self.idle.pop()
            if connection.is_open:
                connection.send()
                return
        task = asyncio.ensure_future(self._connect(self.clock()))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            source = next(self._addresses), 0
            _, connection = await loop.create_connection(lambda: HttpConnection(self), *self._target, local_addr=source)
        except OSError:
            self.arrivals.answers.append((0, due_s, self.clock()))
        else:
            connection.send(due_s)


class HttpConnection(asyncio.Protocol):
    """One connection, which has one request under way at a time."""

    def __init__(self, owner: OpenLoop) -> None:
        self._owner = owner
        self._sent_s: float | None = None
        self._received = bytearray()
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy
        self._transport = transport

    def send(self, due_s: float | None = None) -> None:
        """Send the request."""
        self._sent_s = self._owner.clock() if due_s is None else due_s
        self._transport.write(self._owner.request)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Note the status once the response is complete."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._received.clear()
            self._note(int(head[9:12]))
            if b"connection: close" not in head.lower():
                self._owner.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Note a request that gets no answer."""
        self.is_open = False
        self._note(0)

    def _note(self, status: int) -> None:
        if self._sent_s is not None:
            self._owner.arrivals.answers.append((status, self._sent_s, self._owner.clock()))
            self._sent_s = None


def build_body(text: str) -> bytes:
    """Return the body of a request for the embedding of a text."""
    body = {"model": TEXT_MODEL, "input": text, "truncate": "END", "encoding_format": "base64"}
    return json.dumps(body).encode()


def send_arrivals(url: str, body: bytes, rate: float, seconds: float, result: Connection) -> None:
    """Send requests at a fixed rate, in a process of its own."""
    parts = urlsplit(url)
    result.send(asyncio.run(OpenLoop(parts.hostname or "", parts.port or 80, body, rate).run(seconds)))


def find_capacity(url: str, body: bytes, folder: Path, seconds: float) -> float:
    """Return the most requests per second that are served to clients who wait for their answers."""
    bodies = folder / "bodies.jsonl"
    bodies.write_bytes(body + b"\n")
    rates = []
    for connections in CONNECTIONS:
        report = run_wrk(f"{url}/v1/embeddings", bodies, connections, seconds)
        rates.append((report.requests - report.statuses) / report.seconds)
        log.info("%d connections: %.0f requests/s, p99 %.0f ms", connections, rates[-1], report.p99_ms)
    return max(rates)


def overload(url: str, body: bytes, rate: float, seconds: float) -> Arrivals:
    """Send requests at a fixed rate for some seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=send_arrivals, args=(url, body, rate, seconds, theirs))
    process.start()
    try:
        if not ours.poll(seconds + 2 * ANSWER_TIMEOUT_S):
            raise BenchError("the client of the overload did not end")
        arrivals: Arrivals = ours.recv()
        return arrivals
    finally:
        process.kill()


def describe(capacity: float, arrivals: Arrivals, seconds: float) -> list[tuple[str, str, str]]:
    """Return the rows of the table: what was measured, and `ok` or what is wrong."""
    warm_s = WARM_UP_SHARE * seconds
    goodput = arrivals.compute_goodput(warm_s, seconds)
    statuses = Counter(status for status, *_ in arrivals.answers)
    statuses[0] += arrivals.sent - len(arrivals.answers)
    refused, served = arrivals.list_times(503, warm_s) or [0.0], arrivals.list_times(200, warm_s) or [0.0]
    others = {status for status, count in statuses.items() if count} - {200, 503}
    return [
        ("capacity, requests/s", f"{capacity:.0f}", "ok"),
        ("arrivals, requests/s", f"{arrivals.sent / seconds:.0f}", "ok"),
        (
            "goodput, requests/s",
            f"{goodput:.0f}, {goodput / capacity:.2f} of the capacity",
            "ok" if goodput >= MIN_GOODPUT * capacity else f"below {MIN_GOODPUT}",
        ),
        ("served: median, p99", "{:.2f}, {:.2f} s".format(*np.percentile(served, (50, 99))), "ok"),
        (
            "refused: median, p99",
            "{:.0f}, {:.0f} ms".format(*1e3 * np.percentile(refused, (50, 99))),
            "ok" if np.median(refused) <= MAX_REFUSAL_S else f"above {1e3 * MAX_REFUSAL_S:.0f} ms",
        ),
        (
            "statuses",
            ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(statuses.items()) if count),
            "others than 200 and 503" if others else "ok",
        ),
        ("the client's share of a processor", f"{arrivals.cpu_share:.2f} of {os.cpu_count()}", "ok"),
        ("the client's longest lag", f"{1e3 * arrivals.max_lag_s:.0f} ms", "ok"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Overload the service, print the table, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--repository", type=Path, help="model repository with both models of make serve")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long for each text (default: 40)")
    parsed = parser.parse_args(arguments)
    folder = BUILD_DIR / "overload"
    try:
        repository = parsed.repository or prepare_both_models()
        with FaultyService(repository, folder) as service:
            rows = []
            for name, text in TEXTS.items():
                body = build_body(text)
                capacity = find_capacity(service.url, body, folder, parsed.seconds / 4)
                arrivals = overload(service.url, body, FACTOR * capacity, parsed.seconds)
                rows += [(name, *row) for row in describe(capacity, arrivals, parsed.seconds)]
    except BenchError as error:
        log.error("error: %s", error)
        return 1
    sys.stdout.write(format_table(("text", "measured", "value", "verdict"), [list(row) for row in rows]) + "\n")
    return int(any(verdict != "ok" for *_, verdict in rows))


if __name__ == "__main__":
    sys.exit(main())
