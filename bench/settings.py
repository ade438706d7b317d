"""Settings of a run: how long to measure, and where to keep what that needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

# Exports, the virtual environments of other servers, logs and results; safe to delete.
BUILD_DIR = PROJECT / "build" / "bench"


@dataclass(frozen=True)
class BenchSettings:
    """Settings of one run.

    Attributes:
        rounds: How many times each contender is measured; contenders take turns.
        seconds: Minimum length of a measurement.
        waves: Responses per client in a measurement, on average: requests in flight at the end are not counted.
            A measurement that falls short by half is repeated and takes longer.
        concurrencies: Numbers of clients.
        items_per_request: Request sizes.
        growth_items: Numbers of items, in one run without a pause, at which the cost of an item is compared.
        reuse: Whether to measure the exports of an earlier run.
        build_dir: Folder for everything the run produces.
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
        """Triton model repository under test."""
        return self.build_dir / "model_repository"


# Exercises every step in little time; its numbers mean nothing.
QUICK = BenchSettings(
    rounds=2,
    seconds=0.3,
    waves=1.0,
    concurrencies=(1, 4),
    items_per_request=(1, 4),
    growth_items=(20, 40),
)
