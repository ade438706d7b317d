"""How long to measure, and where to keep what that needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BUILD_DIR = PROJECT / "build" / "bench"
"""Exports, peers' environments, logs and results; safe to delete."""


@dataclass(frozen=True)
class BenchSettings:
    """What one run of the benchmark is given.

    Attributes:
        rounds: Times that each contender is measured; contenders take turns.
        seconds: Least time of one measurement.
        waves: Answers that each client has in one measurement, on average: what is in flight at the end is not counted.
            A measurement that falls short by half is repeated, longer.
        concurrencies: Clients at once.
        items_per_request: Sizes of a request.
        growth_items: Items after which the cost of an item is looked at, in a run without a pause.
        reuse: Measure the exports of an earlier run.
        build_dir: Folder for what is made on the way.
    """

    rounds: int = 5
    seconds: float = 3.0
    waves: float = 4.0
    concurrencies: tuple[int, ...] = (1, 16, 64)
    items_per_request: tuple[int, ...] = (1, 8, 32)
    growth_items: tuple[int, ...] = (1_000, 10_000, 100_000)
    reuse: bool = False
    build_dir: Path = BUILD_DIR

    @property
    def repository(self) -> Path:
        """The Triton model repository that is measured."""
        return self.build_dir / "model_repository"


QUICK = BenchSettings(
    rounds=2,
    seconds=0.3,
    waves=1.0,
    concurrencies=(1, 4),
    items_per_request=(1, 4),
    growth_items=(20, 40),
)
"""Goes the whole way in little time; the figures mean nothing."""
