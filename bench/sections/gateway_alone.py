"""What the gateway itself costs: in front of an engine that answers at once."""

from __future__ import annotations

from bench.results import Load, Measurement
from bench.rounds import alternate
from bench.workbench import Workbench
from bench.workloads import SHORT

NAME = "gateway_alone"


def run(workbench: Workbench) -> list[Measurement]:
    """Measure every size of a request with many clients."""
    settings = workbench.settings
    loads = [Load(SHORT, items, settings.concurrencies[-1]) for items in settings.items_per_request]
    with workbench.run_gateway_alone() as contender:
        return [each for load in loads for each in alternate(NAME, [contender], load, settings.rounds)]
