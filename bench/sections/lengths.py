"""Cost against length: texts of 8 to 256 tokens, then all lengths mixed, through the gateway and in the bare loop."""

from __future__ import annotations

from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import MIXED, TOKEN_LENGTHS

NAME = "lengths"
ITEMS_PER_REQUEST = 8
CLIENTS = 4


def run(workbench: Workbench) -> list[Measurement]:
    """Measure every length under the same load."""
    contenders: list[Contender] = [workbench.engine, workbench.gateway]
    return [
        each
        for workload in (*map(name_length, TOKEN_LENGTHS), MIXED)
        for each in alternate(NAME, contenders, load(workload), workbench.settings.rounds)
    ]


def load(workload: str) -> Load:
    """Return what both are asked to do with a workload."""
    return Load(workload, ITEMS_PER_REQUEST, CLIENTS)


def name_length(tokens: int) -> str:
    """Return the workload of texts of so many tokens."""
    return f"{tokens} tokens"
