"""What an architecture makes of a checkpoint: numbers, graphs to build, and how to check them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from export.spec import ModelSpec
from export.validation import Agreement

GraphFiles = Mapping[str, Path]  # step name → its model.onnx


@dataclass(frozen=True)
class Plan:
    """One export, decided but not done."""

    spec: ModelSpec
    tokenizer: bytes  # tokenizer.json
    graphs: Mapping[str, Callable[[], ir.Model]]  # by step name, in the order of the request path
    compare: Callable[[GraphFiles], Agreement]  # runs the written graphs and the reference on real input
