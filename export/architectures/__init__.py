"""The kinds of checkpoints that can be exported: a module each, with `plan(checkpoint, precision, target)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, UnknownArchitectureError
from export.progress import stage
from export.spec import ModelSpec, Precision, Target, Task
from export.validation import Agreement, RunGraph, ScoreAgreement

Layout = Literal["ragged", "padded"]
GraphFiles = Mapping[str, Path]  # step name → its model.onnx
EmbedSamples = Callable[[GraphFiles, RunGraph], None]

# Module of this package by `model_type` of config.json.
ARCHITECTURES: Mapping[str, str] = {
    "bert": "bert",
    "camembert": "bert",
    "clip": "clip",
    "gemma3_text": "decoder",
    "llama_bidirec": "decoder",
    "llama_nemotron_vl": "nemotron_vl",
    "llama_nemotron_vl_rerank": "nemotron_vl",
    "modernbert": "modernbert",
    "qwen3": "decoder",
    "roberta": "bert",
    "siglip": "siglip",
    "xlm-roberta": "bert",
    # Without a graph of ours, exported by optimum.
    "albert": "padded",
    "deberta": "padded",
    "deberta-v2": "padded",
    "distilbert": "padded",
    "electra": "padded",
    "megatron-bert": "padded",
    "mobilebert": "padded",
    "mpnet": "padded",
    "rembert": "padded",
    "roformer": "padded",
    "squeezebert": "padded",
}
# Classes that `architectures` of config.json may name, by module. Many embedders are published as the masked language
# model that they were trained from, whose encoder is the same.
CLASSES: Mapping[str, frozenset[str]] = {
    "bert": frozenset(
        {"BertForPreTraining"}
        | {f"{family}Model" for family in ("Bert", "Camembert", "Roberta", "XLMRoberta")}
        | {f"{family}ForMaskedLM" for family in ("Bert", "Camembert", "Roberta", "XLMRoberta")}
    ),
    "clip": frozenset({"CLIPModel"}),
    # Qwen3 embedders keep the name of the text generator; modules.json tells them from it.
    "decoder": frozenset({"LlamaBidirectionalModel", "Qwen3Model", "Qwen3ForCausalLM", "Gemma3TextModel"}),
    "modernbert": frozenset({"ModernBertModel", "ModernBertForMaskedLM"}),
    "nemotron_vl": frozenset({"LlamaNemotronVLModel"}),
    "siglip": frozenset({"SiglipModel"}),
}
_UNSUPPORTED: Mapping[str, str] = {
    "siglip2": "a SigLIP 2 of the NaFlex kind, whose images keep their proportions; SigLIP 2 of a fixed resolution is"
    " supported, such as siglip2-base-patch16-224"
}
# Text generators that are rerankers if one says so, by module.
ANSWERERS: Mapping[str, frozenset[str]] = {"decoder": frozenset({"Qwen3ForCausalLM"})}
# Classes of rerankers, by module.
RERANKERS: Mapping[str, frozenset[str]] = {
    "bert": frozenset(
        f"{family}ForSequenceClassification" for family in ("Bert", "Camembert", "Roberta", "XLMRoberta")
    ),
    "decoder": frozenset({"LlamaBidirectionalForSequenceClassification", "Qwen3ForSequenceClassification"}),
    "modernbert": frozenset({"ModernBertForSequenceClassification"}),
    "nemotron_vl": frozenset({"LlamaNemotronVLForSequenceClassification"}),
}
_RERANKER_TYPES = frozenset({"llama_nemotron_vl_rerank"})
# Classes with the weights of an encoder that was trained for another task, by the end of their name.
_OTHER_TASKS: Mapping[str, str] = {
    "ForSequenceClassification": "a sequence classifier",
    "ForTokenClassification": "a token classifier",
    "ForQuestionAnswering": "a question answering model",
    "ForMultipleChoice": "a multiple choice model",
    "ForNextSentencePrediction": "a next sentence predictor",
    "ForCausalLM": "a text generator",
    "LMHeadModel": "a text generator",
}


@dataclass(frozen=True)
class Plan:
    """What to export from a checkpoint, and how to check it.

    Attributes:
        spec: Numbers of the model.
        tokenizer: Content of the `tokenizer.json` to serve.
        graphs: Builder of each graph by step name, in the order of the request path.
        compare: Function that runs the written graphs and the reference on sample inputs.
        layout: Whether the graphs work on rows without padding.
        prompts: Texts that a request may have put before its items instead of the prefix, by their names.
        embed_samples: Function that runs the written graphs on sample inputs, by which int8 is smoothed; None if it is
            not.
    """

    spec: ModelSpec
    tokenizer: bytes
    graphs: Mapping[str, Callable[[], ir.Model]]
    compare: Callable[[GraphFiles], Agreement | ScoreAgreement]
    layout: Layout = "ragged"
    prompts: Mapping[str, str] = field(default_factory=dict)
    embed_samples: EmbedSamples | None = None


def plan_export(checkpoint: Checkpoint, precision: Precision, target: Target = "cpu", task: Task | None = None) -> Plan:
    """Return the plan for the architecture that `config.json` names.

    Args:
        checkpoint: The files.
        precision: Of the graphs.
        target: Device that they will run on.
        task: What the model is for; None for what its class says.

    Raises:
        UnknownArchitectureError: The architecture is not supported.
        CheckpointError: A file or a number is missing, or asks for something that the architecture does not support.
    """
    model_type = str(checkpoint.config.get("model_type") or "")
    if not model_type:
        raise CheckpointError(f"{checkpoint.folder}/config.json has no model_type")
    if model_type in _UNSUPPORTED:
        raise CheckpointError(f"{checkpoint.folder} is {_UNSUPPORTED[model_type]}")
    if model_type not in ARCHITECTURES:
        raise UnknownArchitectureError(model_type, ARCHITECTURES)
    architecture = ARCHITECTURES[model_type]
    task = _find_task(checkpoint, architecture, task)
    module = import_module(f"{__name__}.{architecture}")
    with stage(f"read the files of {checkpoint.folder}", CheckpointError):
        plan: Plan = (module.plan_reranker if task == "rank" else module.plan)(checkpoint, precision, target)
    return plan


def _find_task(checkpoint: Checkpoint, architecture: str, asked: Task | None) -> Task:
    """Return what the classes in `architectures` are for.

    Raises:
        CheckpointError: They are neither embedding models nor rerankers, or not what is asked for.
    """
    supported = CLASSES.get(architecture)
    classes = checkpoint.config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{checkpoint.folder}/config.json: architectures is not a list of names")
    rerankers = RERANKERS.get(architecture, frozenset())
    if checkpoint.config["model_type"] in _RERANKER_TYPES or rerankers.intersection(classes):
        if asked == "embed":
            raise CheckpointError(f"{checkpoint.folder} is a reranker, not an embedding model")
        return "rank"
    if asked == "rank":
        rerankers |= ANSWERERS.get(architecture, frozenset())
        if not rerankers.intersection(classes):
            found = ", ".join(classes) or checkpoint.config["model_type"]
            raise CheckpointError(f"{checkpoint.folder} ({found}) is not a reranker of a kind that is supported")
        return "rank"
    if not classes or (supported and supported.intersection(classes)):
        return "embed"
    for suffix, task in _OTHER_TASKS.items():
        if classes[0].endswith(suffix):
            raise CheckpointError(f"{checkpoint.folder} is {task} ({classes[0]}), not an embedding model")
    if supported:
        raise UnknownArchitectureError(classes[0], supported)
    return "embed"
