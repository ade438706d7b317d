"""Contenders take turns: what else the machine does hits all of them alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from bench.results import Load, Measurement, Sample

log = logging.getLogger(__name__)


class Contender(Protocol):
    """Something that embeds items and can be timed doing so."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def measure(self, load: Load) -> Sample:
        """Put it under a load for a while."""


def alternate(section: str, contenders: Sequence[Contender], load: Load, rounds: int) -> list[Measurement]:
    """Measure every contender once a round.

    Args:
        section: Name of the part of the benchmark that asks.
        contenders: In the order of their turns.
        load: The same for all.
        rounds: Turns of each.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            samples[contender.name].append(contender.measure(load))
    measurements = [Measurement(section, name, load, rounds_of) for name, rounds_of in samples.items()]
    for measurement in measurements:
        report(measurement)
    return measurements


def report(measurement: Measurement) -> None:
    """Say how a measurement went, while the next is under way."""
    load = measurement.load
    log.info(
        "%s: %s, %d a request, %d clients: %s %.1f items/s, p50 %.1f ms, p99 %.1f ms, %d failed",
        measurement.section,
        load.workload,
        load.items_per_request,
        load.concurrency,
        measurement.contender,
        measurement.median(lambda sample: sample.items_per_s),
        measurement.median(lambda sample: sample.p50_ms),
        measurement.median(lambda sample: sample.p99_ms),
        sum(sample.errors for sample in measurement.samples),
    )
