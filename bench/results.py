"""What was measured, and how figures are drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Load:
    """What a contender is asked to do.

    Attributes:
        workload: Name of the items' kind.
        items_per_request: Items of one request.
        concurrency: Requests in flight at any time.
    """

    workload: str
    items_per_request: int
    concurrency: int

    @property
    def items_in_flight(self) -> int:
        """Items asked for at once."""
        return self.items_per_request * self.concurrency


@dataclass(frozen=True)
class Sample:
    """One contender's figures for one load in one round.

    Attributes:
        items_per_s: Throughput.
        p50_ms: Median time of a request.
        p99_ms: 99th percentile of the same.
        requests: Requests answered.
        errors: Requests that failed, by the load tool's count.
        cpu_us_per_item: Processor time by process, in microseconds.
    """

    items_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int = 0
    cpu_us_per_item: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One contender under one load.

    Attributes:
        section: Name of the part of the benchmark.
        contender: What was measured.
        load: What it was asked to do.
        samples: One of each round, in order.
        figures: What else was found out about the contender, by name.
    """

    section: str
    contender: str
    load: Load
    samples: Sequence[Sample]
    figures: Mapping[str, float] = field(default_factory=dict)

    def median(self, read: Callable[[Sample], float]) -> float:
        """Return the median over the rounds of one figure."""
        return median(read(sample) for sample in self.samples)

    def cpu_us_per_item(self, process: str) -> float:
        """Return the median processor time that a process spends on an item, in microseconds."""
        return self.median(lambda sample: sample.cpu_us_per_item.get(process, 0.0))


class Results:
    """All measurements of one run."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        """Keep measurements."""
        self.measurements = list(measurements)

    def __iter__(self) -> Iterator[Measurement]:
        """Iterate in the order measured."""
        return iter(self.measurements)

    def find(self, section: str, contender: str, load: Load) -> Measurement | None:
        """Return one measurement, None if the run does not have it."""
        wanted = (section, contender, load)
        return next((each for each in self.measurements if (each.section, each.contender, each.load) == wanted), None)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [asdict(measurement) for measurement in self.measurements]

    @classmethod
    def from_json(cls, values: Iterable[Mapping[str, Any]]) -> Results:
        """Read what `to_json` has returned."""
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
    """Return items per second."""
    return sample.items_per_s


def ratio(
    over: Measurement | None, under: Measurement | None, read: Callable[[Sample], float] = throughput
) -> float | None:
    """Return the median of the rounds' ratios: what slows both of a round down cancels out.

    Returns:
        None if one of them was not measured.
    """
    if over is None or under is None:
        return None
    pairs = zip(over.samples, under.samples, strict=True)
    return median(read(upper) / read(lower) for upper, lower in pairs)
