"""Injects faults into the running service, one after the other, and tells what its clients noticed of each.

`python -m bench.chaos` (`make chaos`) takes some minutes and uses loopback only. The exit code is 1 if a vector was
wrong, a text was refused where none may be, or the service took too long to recover.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.faults import FAULTS, STOP_TIMEOUT_S, Fault, FaultyService, damage_repository, prepare_both_models
from bench.observations import HEADER, Observation, observe
from bench.report import format_table
from bench.scarcity import (
    exhaust_descriptors,
    fill_disk,
    fill_shared_memory,
    start_without_descriptors,
    start_without_disk,
    start_without_shared_memory,
)
from bench.settings import BUILD_DIR
from bench.traffic import Traffic, make_bodies, post, read_status
from export.names import slug
from launcher.settings import STAND_IN, TEXT_MODEL

log = logging.getLogger("chaos")


def inject_all(
    repository: Path, folder: Path, faults: Sequence[Fault] = FAULTS, image_model: str = STAND_IN
) -> Iterator[Observation]:
    """Inject faults into one service, one after the other, and yield what its clients noticed of each."""
    with (
        FaultyService(repository, folder) as service,
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
    with FaultyService(damaged, folder) as service:
        took_s = time.monotonic() - started_s
        vectors = post(service.url, bodies["text"][1])
        try:
            post(service.url, bodies["text of the image model"][1])
            complaint = "the damaged model is served"
        except OSError as error:
            complaint = "" if "503" in str(error) else str(error)
    return Observation("one model file missing", requests=1 + len(vectors), recovery_s=took_s, complaint=complaint)


SCENARIOS: Sequence[Callable[[Path, Path], Observation]] = (
    stop_under_load,
    lose_model_file,
    fill_shared_memory,
    start_without_shared_memory,
    fill_disk,
    start_without_disk,
    exhaust_descriptors,
    start_without_descriptors,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject every fault, print the table, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--repository", type=Path, help="model repository with both models of make serve")
    parsed = parser.parse_args(arguments)
    folder = BUILD_DIR / "chaos"
    try:
        repository = parsed.repository or prepare_both_models()
    except BenchError as error:
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
