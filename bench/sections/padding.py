"""The packed graph against the padded form of the same weights, both in the bare loop, both in the traffic's order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.contenders.engine import EngineLoop
from bench.contenders.padded import PaddedForm, export_padded
from bench.errors import BenchError
from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import MIXED, PASSAGES, SHORT

NAME = "padding"
BATCH = 32
TOLERANCE = 1e-4


def run(workbench: Workbench) -> list[Measurement]:
    """Measure every workload in batches of 32."""
    settings = workbench.settings
    padded_graph = export_padded(workbench.checkpoint, settings.build_dir / "padded")
    given = (workbench.tokenizer_path, workbench.texts, settings.seconds)
    packed = EngineLoop(workbench.graph, *given, name="packed", batch_sizes=(BATCH,))
    padded = EngineLoop(padded_graph, *given, name="padded", form=PaddedForm(), batch_sizes=(BATCH,))
    check_same(packed, padded, workbench.texts[MIXED][:BATCH])
    contenders: list[Contender] = [packed, padded]
    return [
        each
        for workload in (SHORT, MIXED, PASSAGES)
        for each in alternate(NAME, contenders, load(workload), settings.rounds)
    ]


def load(workload: str) -> Load:
    """Return what both are asked to do with a workload."""
    return Load(workload, BATCH, 1)


def check_same(packed: EngineLoop, padded: EngineLoop, texts: Sequence[str]) -> None:
    """Compare what both make of the same texts: speed bought with other numbers would be worth nothing.

    Raises:
        BenchError: They differ.
    """
    error = float(np.abs(packed.embed(texts) - padded.embed(texts)).max())
    if not error <= TOLERANCE:
        raise BenchError(f"the packed and the padded graph differ by {error:.1e}")
