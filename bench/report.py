"""One run of the benchmark as data: what was measured, on what, and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.goals import GOALS
from bench.machine import describe_machine, describe_versions
from bench.results import Results
from bench.settings import BenchSettings


@dataclass(frozen=True)
class Report:
    """A run.

    Attributes:
        started: UTC, ISO 8601.
        machine: What it ran on.
        versions: Of Python and packages.
        settings: How long and how often.
        results: All measurements.
    """

    started: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Results

    def write(self, path: Path) -> None:
        """Write JSON, the goals' figures with it."""
        goals = [
            {"goal": goal.measure, "at_least": goal.at_least, "aim": goal.aim, "value": goal.read(self.results)}
            for goal in GOALS
        ]
        values = asdict(self) | {"results": self.results.to_json(), "goals": goals}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `write` has written."""
        values = json.loads(path.read_text(encoding="utf-8"))
        del values["goals"]
        return cls(**values | {"results": Results.from_json(values["results"])})


def start_report(settings: BenchSettings) -> Report:
    """Return the report of a run that begins now; its results are still to come."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "build_dir"}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(now, describe_machine(), describe_versions(), chosen, Results())
