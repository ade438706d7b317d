"""The service against other servers, on the same weights and the same processor."""

from __future__ import annotations

from contextlib import ExitStack

from bench.peers.servers import PEERS
from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import MIXED, SHORT

NAME = "peers"


def run(workbench: Workbench) -> list[Measurement]:
    """Measure single short texts over all numbers of clients, then large requests and mixed lengths."""
    settings = workbench.settings
    largest, many = max(settings.items_per_request), settings.concurrencies[1]
    loads = [Load(SHORT, 1, concurrency) for concurrency in settings.concurrencies]
    loads += [Load(SHORT, largest, many), Load(MIXED, 1, many)]
    with ExitStack() as started:
        contenders: list[Contender] = [workbench.gateway]
        contenders += [started.enter_context(workbench.run_peer(peer)) for peer in PEERS]
        return [each for load in loads for each in alternate(NAME, contenders, load, settings.rounds)]
