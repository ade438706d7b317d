"""What the forms of an answer cost: numbers as JSON, base64, int8, fewer dimensions."""

from __future__ import annotations

from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import SHORT

NAME = "responses"
CLIENTS = 4


def run(workbench: Workbench) -> list[Measurement]:
    """Measure every form under the same load of large requests."""
    settings = workbench.settings
    contenders: list[Contender] = [
        workbench.make_gateway("float"),
        workbench.make_gateway("base64", encoding_format="base64"),
        workbench.make_gateway("int8", embedding_type="int8"),
        workbench.make_gateway("int8 as base64", embedding_type="int8", encoding_format="base64"),
        workbench.make_gateway("256 dimensions", dimensions=256),
    ]
    return alternate(NAME, contenders, Load(SHORT, max(settings.items_per_request), CLIENTS), settings.rounds)
