"""What a checkpoint's sentence-transformers files say: pooling, normalisation, limits, prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.spec import Pooling

_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True)
class SentenceEmbedding:
    """How token vectors become one vector, and how texts are dressed before."""

    pooling: Pooling
    normalize: bool
    max_tokens: int | None  # None: as many as there are positions
    lowercase: bool
    query_prefix: str
    passage_prefix: str


def read_sentence_embedding(checkpoint: Checkpoint) -> SentenceEmbedding:
    """Read `modules.json` and the files it stands for; a checkpoint without them is mean-pooled and normalised.

    Raises:
        CheckpointError: it asks for a module or a pooling that is not one of mean, cls and max.
    """
    modules = checkpoint.json("modules.json")
    transformer = checkpoint.json("sentence_bert_config.json") or {}
    query_prefix, passage_prefix = _prefixes(checkpoint.json("config_sentence_transformers.json") or {})
    return SentenceEmbedding(
        pooling=_pooling(checkpoint, modules) if modules else "mean",
        normalize="Normalize" in _module_paths(modules) if modules else True,
        max_tokens=transformer.get("max_seq_length"),
        lowercase=bool(transformer.get("do_lower_case", False)),
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
    )


def _module_paths(modules: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return the folder of each module by its class name."""
    paths = {str(module["type"]).rsplit(".", 1)[-1]: str(module.get("path", "")) for module in modules}
    if unknown := sorted(set(paths) - _MODULES):
        raise CheckpointError(
            f"modules.json asks for {unknown[0]}; only Transformer, Pooling and Normalize are exported"
        )
    return paths


def _pooling(checkpoint: Checkpoint, modules: list[Mapping[str, Any]]) -> Pooling:
    path = _module_paths(modules).get("Pooling", "1_Pooling")
    config = checkpoint.require_json(f"{path}/config.json")
    asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(asked) != 1 or asked[0] not in _POOLINGS:
        raise CheckpointError(
            f"{path}/config.json asks for pooling {' + '.join(asked) or 'of no kind'}, not mean, cls or max"
        )
    return _POOLINGS[asked[0]]


def _prefixes(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the query and passage prompts; sentence-transformers calls passages `document` as well."""
    prompts: Mapping[str, str] = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    return prompts.get("query", default), prompts.get("passage", prompts.get("document", default))
