"""What the files of sentence-transformers say: prompts, limits, and how hidden states become one embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from export.architectures.config import require_flag, require_objects, require_sizes, require_text
from export.checkpoint import DENSE, TRANSFORMER, Checkpoint, Module
from export.errors import CheckpointError
from export.graphs.text_embedder import DenseLayer, SentenceHead
from export.spec import Pooling

_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
# Names of our activations by the names of PyTorch's classes.
_ACTIVATIONS: Mapping[str, str | None] = {
    "Identity": None,
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}
_ORDER = (TRANSFORMER, "Pooling", DENSE, "Normalize")


@dataclass(frozen=True)
class SentenceEmbedding:
    """How a text becomes one vector.

    Attributes:
        head: What follows the encoder.
        max_tokens: Longest sequence; None for as many tokens as the encoder takes.
        lowercase: Whether the text is lowered first.
        query_prefix: Text put before a query.
        passage_prefix: Text put before a passage.
        prompts: All texts that may be put before a text, by their names.
    """

    head: SentenceHead = field(default_factory=lambda: SentenceHead("mean"))
    max_tokens: int | None = None
    lowercase: bool = False
    query_prefix: str = ""
    passage_prefix: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)


def read_sentence_embedding(checkpoint: Checkpoint) -> SentenceEmbedding:
    """Read the files of sentence-transformers; a checkpoint without them is mean-pooled and normalised.

    Raises:
        CheckpointError: The files ask for something that is not supported.
    """
    transformer = checkpoint.json(checkpoint.transformer_file("sentence_bert_config.json")) or {}
    if transformer.get("max_seq_length") is not None:
        require_sizes(transformer, "max_seq_length")
    if transformer.get("do_lower_case") is not None:
        require_flag(transformer, "do_lower_case")
    config = checkpoint.json("config_sentence_transformers.json") or {}
    prompts = _read_prompts(config)
    query_prefix, passage_prefix = _prefixes(prompts, config.get("default_prompt_name") or "")
    has_prompts = bool(query_prefix or passage_prefix)
    return SentenceEmbedding(
        head=_read_head(checkpoint, checkpoint.modules, has_prompts) if checkpoint.modules else SentenceHead("mean"),
        max_tokens=transformer.get("max_seq_length"),
        lowercase=bool(transformer.get("do_lower_case", False)),
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        prompts=prompts if _pools_prompts(checkpoint) else {},
    )


def _read_head(checkpoint: Checkpoint, modules: Sequence[Module], has_prompts: bool) -> SentenceHead:
    kinds = [module.kind for module in modules]
    if unknown := [kind for kind in kinds if kind not in _ORDER]:
        raise CheckpointError(f"modules.json asks for {unknown[0]}; only {', '.join(_ORDER)} are supported")
    if kinds != sorted(kinds, key=_ORDER.index) or any(kinds.count(kind) > 1 for kind in set(kinds) - {DENSE}):
        raise CheckpointError(f"modules.json has the order {', '.join(kinds)}; only {', '.join(_ORDER)} is supported")
    path = next((module.path for module in modules if module.kind == "Pooling"), "1_Pooling")
    return SentenceHead(
        pooling=_read_pooling(checkpoint, f"{path}/config.json", has_prompts),
        dense=tuple(_read_dense(checkpoint, module.path) for module in modules if module.kind == DENSE),
        normalize="Normalize" in kinds,
    )


def _read_pooling(checkpoint: Checkpoint, name: str, has_prompts: bool) -> Pooling:
    config = checkpoint.require_json(name)
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        asked = " + ".join(modes) or "no pooling"
        raise CheckpointError(f"{name} asks for {asked}; only {', '.join(_POOLINGS.values())} are supported, alone")
    if has_prompts and config.get("include_prompt") is False:
        raise CheckpointError(f"{name} leaves the tokens of the prompt out (include_prompt), which is not supported")
    return _POOLINGS[modes[0]]


def _read_dense(checkpoint: Checkpoint, path: str) -> DenseLayer:
    config = checkpoint.require_json(f"{path}/config.json")
    name = f"{path}.linear"
    function = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh").rsplit(".", 1)[-1]
    if function not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}/config.json asks for the activation {function}; only {', '.join(_ACTIVATIONS)} are supported"
        )
    outputs, inputs = checkpoint.weights.shape(f"{name}.weight")
    if (config.get("in_features"), config.get("out_features")) != (inputs, outputs):
        raise CheckpointError(f"{path}/config.json does not fit its weights of shape {(outputs, inputs)}")
    return DenseLayer(name, outputs, _ACTIVATIONS[function])


def _pools_prompts(checkpoint: Checkpoint) -> bool:
    """Return whether the tokens of a prompt are pooled like those of the text."""
    path = next((module.path for module in checkpoint.modules or () if module.kind == "Pooling"), "1_Pooling")
    return (checkpoint.json(f"{path}/config.json") or {}).get("include_prompt") is not False


def _read_prompts(config: Mapping[str, Any]) -> Mapping[str, str]:
    if config.get("prompts"):
        require_objects(config, "prompts")
    prompts: Mapping[str, str] = config.get("prompts") or {}
    for name in prompts:
        require_text(prompts, name)
    return prompts


def _prefixes(prompts: Mapping[str, str], default_name: str) -> tuple[str, str]:
    """Return the query and passage prompts; sentence-transformers also calls passages `document`."""
    default = prompts.get(default_name, "")
    return prompts.get("query", default), prompts.get("passage", prompts.get("document", default))
