"""Measurements, and the figures derived from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Load:
    """Load that a contender is put under.

    Attributes:
        workload: Name of the kind of items.
        items_per_request: Number of items in a request.
        concurrency: Number of requests in flight at any time.
    """

    workload: str
    items_per_request: int
    concurrency: int

    @property
    def items_in_flight(self) -> int:
        """Number of items in flight at any time."""
        return self.items_per_request * self.concurrency


@dataclass(frozen=True)
class Sample:
    """Figures of one contender under one load in one round.

    Attributes:
        items_per_s: Throughput.
        p50_ms: Median latency of a request.
        p99_ms: 99th percentile of the latency.
        requests: Number of requests completed.
        errors: Number of requests that failed, as the load generator counts them.
        cpu_us_per_item: CPU time per item by process, in microseconds.
    """

    items_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int = 0
    cpu_us_per_item: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """All rounds of one contender under one load.

    Attributes:
        section: Section of the benchmark that measured it.
        contender: Name of the contender.
        load: Load it was put under.
        samples: One sample per round, in order.
        figures: Other figures about the contender, by name.
    """

    section: str
    contender: str
    load: Load
    samples: Sequence[Sample]
    figures: Mapping[str, float] = field(default_factory=dict)

    def median(self, read: Callable[[Sample], float]) -> float:
        """Return the median of a figure over the rounds."""
        return median(read(sample) for sample in self.samples)

    def cpu_us_per_item(self, process: str) -> float:
        """Return the median CPU time that a process spends on an item, in microseconds."""
        return self.median(lambda sample: sample.cpu_us_per_item.get(process, 0.0))


class Results:
    """All measurements of one run, in the order in which they were made."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self.measurements = list(measurements)

    def __iter__(self) -> Iterator[Measurement]:
        """Iterate over the measurements."""
        return iter(self.measurements)

    def find(self, section: str, contender: str, load: Load) -> Measurement | None:
        """Return a measurement, or None if the run did not make it."""
        wanted = (section, contender, load)
        return next((each for each in self.measurements if (each.section, each.contender, each.load) == wanted), None)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the measurements as JSON values."""
        return [asdict(measurement) for measurement in self.measurements]

    @classmethod
    def from_json(cls, values: Iterable[Mapping[str, Any]]) -> Results:
        """Read what `to_json` returned."""
        return cls(
            Measurement(
                value["section"],
                value["contender"],
                Load(**value["load"]),
                [Sample(**sample) for sample in value["samples"]],
                value.get("figures", {}),
            )
            for value in values
        )


def throughput(sample: Sample) -> float:
    """Return the throughput in items per second."""
    return sample.items_per_s


def p50(sample: Sample) -> float:
    """Return the median latency of a request, in milliseconds."""
    return sample.p50_ms


def p99(sample: Sample) -> float:
    """Return the 99th percentile of a request's latency, in milliseconds."""
    return sample.p99_ms


def ratio(
    over: Measurement | None, under: Measurement | None, read: Callable[[Sample], float] = throughput
) -> float | None:
    """Return the median of the per-round ratios of a figure, or None if either contender was not measured.

    Whatever slows down a whole round cancels out.
    """
    if over is None or under is None:
        return None
    pairs = zip(over.samples, under.samples, strict=True)
    return median(read(upper) / read(lower) for upper, lower in pairs)
