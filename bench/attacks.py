"""Attacks the running service, in one way after the other, and tells what its other clients noticed.

`python -m bench.attacks` (`make attacks`) takes about ten minutes and uses loopback only. Beside each attack, a text
and a small image come from another address ten times a second. The exit code is 1 if a vector was wrong, one of these
requests failed, or they took longer than they may.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench.attack_list import ATTACKS, HOST_OF_IMAGES, URLS, Attack
from bench.canary import Canary
from bench.errors import BenchError, ServiceFailedError
from bench.faults import FaultyService, prepare_both_models
from bench.report import format_table
from bench.settings import BUILD_DIR
from bench.traffic import make_bodies
from launcher.settings import STAND_IN, TEXT_MODEL

log = logging.getLogger("attacks")

NICENESS = 15
"""Of the attacker, who usually has a machine of its own."""

WRITE_TIMEOUT_S = 120.0
CALM_S = 0.5
MAX_CALMING_S = 120.0

HEADER = (
    "attack",
    "text: median, p99, longest",
    "image: median, p99, longest",
    "wrong",
    "refused",
    "the attack's responses",
    "verdict",
)


@dataclass(frozen=True)
class Observation:
    """What other clients noticed of an attack.

    Attributes:
        attack: Name of the attack.
        seconds: How long the responses took, by kind of request.
        wrong: Number of wrong vectors.
        faults: What was wrong with each request that got no vector.
        answers: How many responses of each status the attack got; 0 stands for none.
        max_p99_s: What 99 of 100 responses may take.
    """

    attack: str
    seconds: Mapping[str, Sequence[float]]
    wrong: int
    faults: Sequence[str]
    answers: Mapping[int, int]
    max_p99_s: float

    @property
    def complaint(self) -> str:
        """Why this is not acceptable; empty if it is."""
        if self.wrong:
            return "wrong vectors"
        if self.faults:
            return f"refused: {self.faults[0][:80]}"
        if self.answers.get(500):
            return "it got a 500"
        slow = [kind for kind, seconds in self.seconds.items() if np.percentile(seconds, 99) > self.max_p99_s]
        return f"{' and '.join(slow)} above {self.max_p99_s:.0f} s" if slow else ""

    def as_row(self) -> list[str]:
        """Return the row of the table."""
        times = [
            f"{np.median(seconds):.2f}, {np.percentile(seconds, 99):.2f}, {max(seconds):.2f} s"
            for seconds in self.seconds.values()
        ]
        answers = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(self.answers.items()))
        return [self.attack, *times, str(self.wrong), str(len(self.faults)), answers, self.complaint or "ok"]


def send_again(address: tuple[str, int], attack: Attack, pieces: Sequence[bytes], end_s: float) -> Iterator[int]:
    """Send what an attack sends, again and again or holding the connection, and yield the statuses."""
    while time.monotonic() < end_s:
        with suppress(OSError), socket.create_connection(address, timeout=10) as connection:
            connection.settimeout(max(end_s - time.monotonic(), 0.1))
            with suppress(BrokenPipeError, ConnectionResetError):  # refused midway: the response says why
                for piece in pieces:
                    connection.sendall(piece)
            if not attack.reads:
                time.sleep(max(end_s - time.monotonic(), 0))
                return
            yield read_response(connection)


def read_response(connection: socket.socket) -> int:
    """Read a response to its end and return its status; 0 if there is none."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    return response.status


def run_attack(name: str, url: str, seconds: float, is_ready: Event, answers: Queue[Any]) -> None:
    """Attack for some seconds, in a process of its own, once the request is written."""
    os.nice(NICENESS)
    [attack] = [attack for attack in ATTACKS if attack.name == name]  # functions cannot be sent to a process
    pieces = attack.write()
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    counts: Counter[int] = Counter()
    is_ready.set()
    end_s = time.monotonic() + seconds

    def send() -> None:
        counts.update(send_again(address, attack, pieces, end_s))

    clients = [threading.Thread(target=send) for _ in range(attack.clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    answers.put(dict(counts))


@contextmanager
def attacking(attack: Attack, url: str, seconds: float) -> Iterator[Counter[int]]:
    """Attack from the start of the block; it ends with the attack, whose responses are then counted."""
    context = multiprocessing.get_context("spawn")
    is_ready, answers = context.Event(), context.Queue()
    process = context.Process(target=run_attack, args=(attack.name, url, seconds, is_ready, answers))
    process.start()
    counts: Counter[int] = Counter()
    try:
        if not is_ready.wait(WRITE_TIMEOUT_S):
            raise ServiceFailedError("the attack", "it could not be prepared")
        yield counts
        counts.update(answers.get(timeout=seconds + WRITE_TIMEOUT_S))
        process.join()
    finally:
        process.kill()


def observe(url: str, attack: Attack, seconds: float) -> Observation:
    """Attack the service, with well-behaved clients beside."""
    bodies = make_bodies(TEXT_MODEL, STAND_IN)
    canaries = {kind: Canary(url, bodies[kind][1]) for kind in ("text", "image")}
    with attacking(attack, url, seconds) as answers, canaries["text"], canaries["image"]:
        time.sleep(seconds)
    await_calm(canaries.values())
    return Observation(
        attack.name,
        {kind: canary.seconds for kind, canary in canaries.items()},
        sum(canary.wrong for canary in canaries.values()),
        [fault for canary in canaries.values() for fault in canary.faults],
        answers,
        attack.max_p99_s,
    )


def await_calm(canaries: Iterable[Canary]) -> None:
    """Wait until the service has finished what the attack has left."""
    end_s = time.monotonic() + MAX_CALMING_S
    for canary in canaries:
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            with suppress(OSError):
                canary.embed()
                if time.monotonic() - started_s < CALM_S:
                    break


def enter_own_network(arguments: Sequence[str]) -> None:
    """Continue in a network of our own, where loopback has a public address too; return where that is not allowed."""
    names = BUILD_DIR / "attacks" / "resolv.conf"
    names.parent.mkdir(parents=True, exist_ok=True)
    names.write_text(f"nameserver {HOST_OF_IMAGES}\n")
    commands = (
        f"ip link set lo up && ip addr add {HOST_OF_IMAGES}/32 dev lo && "
        f"mount --bind '{names}' /etc/resolv.conf && exec \"$@\""
    )
    prefix = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", commands, "sh"]
    if all(map(shutil.which, ("unshare", "ip"))):
        if not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            os.execvp(prefix[0], [*prefix, sys.executable, "-m", "bench.attacks", *arguments])  # noqa: S606


def has_address(address: str) -> bool:
    """Return whether this machine has the address."""
    try:
        with socket.create_server((address, 0)):
            return True
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack in every way, print the table, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("--repository", type=Path, help="model repository with both models of make serve")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each attack lasts (default: 15)")
    parser.add_argument("--only", default="", metavar="WORDS", help="attacks whose name contains this")
    parsed = parser.parse_args(arguments)
    if not has_address(HOST_OF_IMAGES):
        enter_own_network(sys.argv[1:] if arguments is None else arguments)
        log.warning("attacks by image servers are LEFT OUT: this user may not have a network of its own")
    attacks = [attack for attack in ATTACKS if parsed.only in attack.name]
    if not attacks:
        parser.error(f"no attack's name contains {parsed.only!r}")
    if not has_address(HOST_OF_IMAGES):
        attacks = [attack for attack in attacks if attack not in URLS]
    try:
        repository = parsed.repository or prepare_both_models()
    except BenchError as error:
        log.error("error: %s", error)
        return 1
    observations = []
    try:
        with FaultyService(repository, BUILD_DIR / "attacks", settings={"GATEWAY_IMAGE_URLS": "on"}) as service:
            for attack in attacks:
                observations.append(observe(service.url, attack, parsed.seconds))
                log.info(" | ".join(observations[-1].as_row()))
    except (BenchError, OSError) as error:
        log.error("error: %s", error)
        return 1
    sys.stdout.write(format_table(HEADER, [observation.as_row() for observation in observations]) + "\n")
    return int(any(observation.complaint for observation in observations))


if __name__ == "__main__":
    sys.exit(main())
