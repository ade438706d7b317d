"""How long to measure, and where to keep what that needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BUILD_DIR = PROJECT / "build" / "bench"
"""Exports, peers' environments, logs and results; safe to delete."""

TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class BenchSettings:
    """What one run of the benchmark is given.

    Attributes:
        rounds: Times that each contender is measured; contenders take turns.
        seconds: Least time of one measurement.
        waves: Least time of one measurement, in answers to a request: what is in flight at the end is not counted.
        concurrencies: Clients at once.
        items_per_request: Sizes of a request.
        build_dir: Folder for what is made on the way.
    """

    rounds: int = 5
    seconds: float = 4.0
    waves: float = 8.0
    concurrencies: tuple[int, ...] = (1, 16, 64)
    items_per_request: tuple[int, ...] = (1, 8, 32)
    build_dir: Path = BUILD_DIR

    @property
    def repository(self) -> Path:
        """The Triton model repository that is measured."""
        return self.build_dir / "model_repository"


def quick_settings(build_dir: Path = BUILD_DIR) -> BenchSettings:
    """Return settings that go the whole way in little time; their figures mean nothing."""
    return BenchSettings(
        rounds=2, seconds=0.3, waves=1.0, concurrencies=(1, 4), items_per_request=(1, 4), build_dir=build_dir
    )
