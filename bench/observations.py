"""What the clients of a service notice of a fault, until all is well again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.faults import Fault, FaultyService
from bench.traffic import Outcome, Traffic

MIN_WATCH_S = 8.0
"""Longer than it takes to notice any fault."""

CALM_S = 3.0
MAX_WATCH_S = 90.0

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
