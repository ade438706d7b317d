"""12-word texts through the gateway against the engine limit, over request sizes and numbers of clients."""

from __future__ import annotations

from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import SHORT

NAME = "throughput"


def run(workbench: Workbench) -> list[Measurement]:
    """Measure the whole grid."""
    settings = workbench.settings
    loads = [
        Load(SHORT, items, concurrency)
        for items in settings.items_per_request
        for concurrency in settings.concurrencies
    ]
    contenders: list[Contender] = [workbench.engine, workbench.gateway]
    return [each for load in loads for each in alternate(NAME, contenders, load, settings.rounds)]
