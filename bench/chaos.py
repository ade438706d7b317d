"""Injects faults into the running service, one after the other, and tells what its clients noticed of each.

`python -m bench.chaos` (`make chaos`) takes some minutes and uses loopback only. The exit code is 1 if a vector was
wrong, a text was refused where none may be, or the service took too long to recover.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, ServiceFailedError
from bench.faults import FAULTS, STOP_TIMEOUT_S, Fault, FaultyService, damage_repository
from bench.report import format_table
from bench.settings import BUILD_DIR
from bench.traffic import Outcome, Traffic, make_bodies, post, read_status
from export.names import slug
from launcher.errors import LauncherError
from launcher.models import prepare_repository
from launcher.settings import STAND_IN, TEXT_MODEL, LauncherSettings

log = logging.getLogger("chaos")

MIN_WATCH_S = 8.0
"""Longer than it takes to notice any fault."""

CALM_S = 3.0
MAX_WATCH_S = 90.0

SHARED_MEMORY = "size=256m"
TOO_LITTLE_SHARED_MEMORY = "size=48m"

HEADER = ("fault", "wrong vectors", "texts refused", "images refused", "requests", "time to recover", "verdict")


@dataclass(frozen=True)
class Observation:
    """What clients noticed of a fault.

    Attributes:
        fault: Name of the fault.
        wrong: Number of wrong vectors.
        texts_refused: Number of requests with texts that failed.
        images_refused: Number of requests with images that failed.
        requests: Number of all requests.
        recovery_s: Time from the fault to the end of the last request that failed or took long, in seconds.
        complaint: Why this is not acceptable; empty if it is.
    """

    fault: str
    wrong: int = 0
    texts_refused: int = 0
    images_refused: int = 0
    requests: int = 0
    recovery_s: float = 0.0
    complaint: str = ""

    def as_row(self) -> list[str]:
        """Return the row of the table."""
        counts = (self.wrong, self.texts_refused, self.images_refused, self.requests)
        return [self.fault, *map(str, counts), f"{self.recovery_s:.1f} s", self.complaint or "ok"]


def observe(service: FaultyService, traffic: Traffic, fault: Fault) -> Observation:
    """Inject a fault and watch the clients until all is well again."""
    injected_s = time.monotonic()
    fault.inject(service)
    watched_until_s = time.monotonic() + MIN_WATCH_S
    while time.monotonic() < watched_until_s or not traffic.is_calm(CALM_S):
        if time.monotonic() > injected_s + MAX_WATCH_S:
            break
        time.sleep(0.1)
    observation = sum_up(fault, traffic.since(injected_s), injected_s)
    if not traffic.is_calm(CALM_S):
        return Observation(**{**vars(observation), "complaint": f"not serving again after {MAX_WATCH_S:.0f} s"})
    return observation


def sum_up(fault: Fault, outcomes: Sequence[Outcome], injected_s: float) -> Observation:
    """Count what went wrong since a fault, and judge it."""
    wrong = sum(outcome.verdict == "wrong" for outcome in outcomes)
    texts, images = (
        sum(outcome.kind == kind and outcome.verdict == "refused" for outcome in outcomes) for kind in ("text", "image")
    )
    failed_s = [
        outcome.ended_s
        for outcome in outcomes
        if outcome.verdict != "right" or outcome.ended_s - outcome.sent_s > CALM_S
    ]
    recovery_s = max(failed_s, default=injected_s) - injected_s
    complaint = ""
    if recovery_s > fault.max_recovery_s:
        complaint = f"took longer than {fault.max_recovery_s:.0f} s"
    if texts and fault.spares_texts:
        complaint = "texts were refused"
    if wrong:
        complaint = "wrong vectors"
    return Observation(fault.name, wrong, texts, images, len(outcomes), recovery_s, complaint)


@contextmanager
def running(service: FaultyService) -> Iterator[FaultyService]:
    """Run a service until the block ends.

    Raises:
        ServiceFailedError: It does not start.
    """
    service.start()
    try:
        yield service
    finally:
        service.stop()


def inject_all(
    repository: Path, folder: Path, faults: Sequence[Fault] = FAULTS, image_model: str = STAND_IN
) -> Iterator[Observation]:
    """Inject faults into one service, one after the other, and yield what its clients noticed of each."""
    with (
        running(FaultyService(repository, folder)) as service,
        Traffic(service.url, make_bodies(TEXT_MODEL, image_model)) as traffic,
    ):
        for fault in faults:
            observation = observe(service, traffic, fault)
            log.info(" | ".join(observation.as_row()))
            yield observation


def stop_under_load(repository: Path, folder: Path) -> Observation:
    """Stop the service by SIGTERM while clients send requests: those that it has accepted are answered."""
    service = FaultyService(repository, folder)
    service.start()
    bodies = make_bodies(TEXT_MODEL, STAND_IN)
    with Traffic(service.url, bodies) as traffic:
        time.sleep(1.0)
        stopped_s = time.monotonic()
        service.launcher.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # within the drain, which is a second
        status = read_status(f"{service.url}/v1/health/ready")
        exit_code = service.launcher.wait(STOP_TIMEOUT_S)
        took_s = time.monotonic() - stopped_s
    cut = [outcome for outcome in traffic.since(stopped_s) if outcome.sent_s < stopped_s]
    complaint = "" if exit_code == 0 else f"exit code {exit_code}"
    if status != 503:
        complaint = f"readiness was {status} while draining"
    if any(outcome.verdict != "right" for outcome in cut):
        complaint = "accepted requests were dropped"
    return Observation("SIGTERM under load", requests=len(cut), recovery_s=took_s, complaint=complaint)


def lose_model_file(repository: Path, folder: Path) -> Observation:
    """Start without a file of one model: it is unavailable, and the other one is served."""
    damaged = damage_repository(repository, folder / "repository", f"{slug(STAND_IN)}_vision_encoder/1/model.onnx")
    bodies = make_bodies(TEXT_MODEL, STAND_IN)
    started_s = time.monotonic()
    with running(FaultyService(damaged, folder)) as service:
        took_s = time.monotonic() - started_s
        vectors = post(service.url, bodies["text"][1])
        try:
            post(service.url, bodies["text of the image model"][1])
            complaint = "the damaged model is served"
        except OSError as error:
            complaint = "" if "503" in str(error) else str(error)
    return Observation("one model file missing", requests=1 + len(vectors), recovery_s=took_s, complaint=complaint)


def fill_shared_memory(repository: Path, folder: Path) -> Observation:
    """Fill `/dev/shm` under a running service, and empty it again."""
    filler = "dev/shm/filler"

    def fill(service: FaultyService) -> None:
        path = Path(f"/proc/{service.find('triton').pid}/root", filler)
        subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M"], capture_output=True, check=False)  # noqa: S607
        time.sleep(5)
        path.unlink()

    fault = Fault("/dev/shm full for 5 s", fill)  # noqa: S108
    with (
        running(FaultyService(repository, folder, private_shared_memory(SHARED_MEMORY))) as service,
        Traffic(service.url, make_bodies(TEXT_MODEL, STAND_IN, images=8)) as traffic,
    ):
        return observe(service, traffic, fault)


def start_without_shared_memory(repository: Path, folder: Path) -> Observation:
    """Start under a `/dev/shm` that is too small: the launcher says so and exits."""
    service = FaultyService(repository, folder, private_shared_memory(TOO_LITTLE_SHARED_MEMORY))
    started_s = time.monotonic()
    try:
        with running(service):
            complaint = "it started"
    except ServiceFailedError as error:
        complaint = "" if "MiB free" in str(error) else "the message does not say so"
    return Observation("too little shared memory", recovery_s=time.monotonic() - started_s, complaint=complaint)


def private_shared_memory(options: str) -> list[str]:
    """Return words before a command that give it a `/dev/shm` of its own.

    Raises:
        BenchError: This machine does not allow it.
    """
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        raise BenchError("this user may not mount a /dev/shm of its own")
    return prefix


SCENARIOS: Sequence[Callable[[Path, Path], Observation]] = (
    stop_under_load,
    lose_model_file,
    fill_shared_memory,
    start_without_shared_memory,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject every fault, print the table, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--repository", type=Path, help="model repository with both models of make serve")
    parsed = parser.parse_args(arguments)
    folder = BUILD_DIR / "chaos"
    try:
        repository = parsed.repository or prepare_repository(LauncherSettings(repository=None, model=None)).repository
    except LauncherError as error:
        log.error("error: %s", error)
        return 1
    observations = []
    try:
        for observation in inject_all(repository, folder / "faults"):
            observations.append(observation)
    except BenchError as error:
        observations.append(Observation("the service", complaint=str(error)))
    for scenario in SCENARIOS:
        name = scenario.__name__.replace("_", " ")
        log.info("%s", name)
        try:
            observations.append(scenario(repository, folder / scenario.__name__))
        except BenchError as error:
            observations.append(Observation(name, complaint=str(error)))
    sys.stdout.write(format_table(HEADER, [observation.as_row() for observation in observations]) + "\n")
    return int(any(observation.complaint for observation in observations))


if __name__ == "__main__":
    sys.exit(main())
