"""The text ensemble by gRPC, against the engine limit below it and the gateway above it."""

from __future__ import annotations

from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import SHORT

NAME = "triton"


def run(workbench: Workbench) -> list[Measurement]:
    """Measure one item and the largest request, with many clients."""
    settings = workbench.settings
    largest, clients = max(settings.items_per_request), settings.concurrencies
    loads = [Load(SHORT, 1, clients[0]), Load(SHORT, 1, clients[-1]), Load(SHORT, largest, clients[1])]
    contenders: list[Contender] = [workbench.engine, workbench.triton, workbench.gateway]
    return [each for load in loads for each in alternate(NAME, contenders, load, settings.rounds)]
