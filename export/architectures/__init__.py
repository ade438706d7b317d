"""The kinds of checkpoints that can be exported, one module each, with a function `plan(checkpoint, precision)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import onnx_ir as ir

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, UnknownArchitectureError
from export.progress import stage
from export.spec import ModelSpec, Precision
from export.validation import Agreement

GraphFiles = Mapping[str, Path]  # step name → its model.onnx

# `model_type` of config.json, or where it has none the first of its `architectures` → module of this package
ARCHITECTURES: Mapping[str, str] = {
    "LlamaNemotronVLModel": "nemotron_vl",
    "bert": "bert",
    "camembert": "bert",
    "llama_nemotron_vl": "nemotron_vl",
    "roberta": "bert",
    "xlm-roberta": "bert",
}


@dataclass(frozen=True)
class Plan:
    """What to export from a checkpoint, and how to check it.

    Attributes:
        spec: Numbers of the model.
        tokenizer: Content of the `tokenizer.json` to serve.
        graphs: Builder of each graph by step name, in the order of the request path.
        compare: Function that runs the written graphs and the reference on sample inputs.
    """

    spec: ModelSpec
    tokenizer: bytes
    graphs: Mapping[str, Callable[[], ir.Model]]
    compare: Callable[[GraphFiles], Agreement]


def plan_export(checkpoint: Checkpoint, precision: Precision) -> Plan:
    """Return the plan for the architecture that `config.json` names.

    Raises:
        UnknownArchitectureError: The architecture is not supported.
        CheckpointError: A file or a number is missing, or asks for something that the architecture does not support.
    """
    classes = checkpoint.config.get("architectures") or ["none named in config.json"]
    found = str(checkpoint.config.get("model_type") or classes[0])
    if found not in ARCHITECTURES:
        raise UnknownArchitectureError(found, ARCHITECTURES)
    module = import_module(f"{__name__}.{ARCHITECTURES[found]}")
    with stage(f"read the files of {checkpoint.folder}", CheckpointError):
        plan: Plan = module.plan(checkpoint, precision)
    return plan
