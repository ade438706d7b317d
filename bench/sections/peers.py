"""The service against other servers, on the same weights and the same processor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from bench.contenders.http import HttpContender
from bench.errors import BenchError
from bench.peers.servers import PEERS
from bench.results import Load, Measurement
from bench.rounds import alternate
from bench.workbench import Workbench
from bench.workloads import MIXED, SHORT

NAME = "peers"
TOLERANCE = 1e-3
CHECKED = 8


def run(workbench: Workbench) -> list[Measurement]:
    """Measure single short texts over all numbers of clients, then large requests and mixed lengths."""
    settings = workbench.settings
    largest, many = max(settings.items_per_request), settings.concurrencies[1]
    loads = [Load(SHORT, 1, concurrency) for concurrency in settings.concurrencies]
    loads += [Load(SHORT, largest, many), Load(MIXED, 1, many)]
    with ExitStack() as started:
        contenders = [workbench.gateway]
        contenders += [started.enter_context(workbench.run_peer(peer)) for peer in PEERS]
        check_same(contenders, workbench.texts[MIXED][:CHECKED])
        return [each for load in loads for each in alternate(NAME, contenders, load, settings.rounds)]


def check_same(contenders: Sequence[HttpContender], texts: Sequence[str]) -> None:
    """Compare what all make of the same texts: who pools otherwise, or not at all, would run another race.

    Raises:
        BenchError: They differ.
    """
    first, *others = [contender.embed(texts) for contender in contenders]
    for contender, embeddings in zip(contenders[1:], others, strict=True):
        error = float(np.abs(embeddings - first).max())
        if not error <= TOLERANCE:
            raise BenchError(f"the embeddings of {contenders[0].name} and {contender.name} differ by {error:.1e}")
