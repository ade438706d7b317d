"""The kinds of checkpoints that can be exported: one module each, with a function `plan(checkpoint, precision)`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, UnknownArchitectureError
from export.plan import Plan
from export.spec import Precision
from export.stages import stage

# `model_type` of config.json, or where it has none the first of its `architectures` → module of this package
ARCHITECTURES: Mapping[str, str] = {
    "LlamaNemotronVLModel": "nemotron_vl",
    "bert": "bert",
    "camembert": "bert",
    "llama_nemotron_vl": "nemotron_vl",
    "roberta": "bert",
    "xlm-roberta": "bert",
}


def plan_export(checkpoint: Checkpoint, precision: Precision) -> Plan:
    """Return the plan of the architecture that `config.json` names.

    Raises:
        UnknownArchitectureError: no module is written for it.
        CheckpointError: the checkpoint lacks a file or a number, or asks for what the architecture cannot do.
    """
    classes = checkpoint.config.get("architectures") or ["none named in config.json"]
    found = str(checkpoint.config.get("model_type") or classes[0])
    if found not in ARCHITECTURES:
        raise UnknownArchitectureError(found, ARCHITECTURES)
    module = import_module(f"{__name__}.{ARCHITECTURES[found]}")
    with stage(f"read the files of {checkpoint.folder}", CheckpointError):
        plan: Plan = module.plan(checkpoint, precision)
    return plan
