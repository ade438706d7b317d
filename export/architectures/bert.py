"""Text encoders of the BERT family, with or without sentence-transformers files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from export.architectures import GraphFiles, Plan
from export.architectures.config import (
    require_flag,
    require_multiple,
    require_number,
    require_objects,
    require_sizes,
    require_text,
)
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.bert import build_bert_embedder, max_tokens
from export.names import EMBEDDER
from export.spec import ModelSpec, Pooling, Precision, Target
from export.tokenizer import check_expansion, check_prefixes, check_token_ids, prepare_tokenizer
from export.validation import Agreement

WORD_EMBEDDINGS = "word_embeddings.weight"
POSITION_EMBEDDINGS = "position_embeddings.weight"

_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_MODULES = {"Transformer", "Pooling", "Normalize"}


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    _check_sizes(checkpoint.config)
    sentence = read_sentence_embedding(checkpoint)
    spec = _spec(checkpoint, sentence)
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, lowercase=sentence.lowercase)
    check_token_ids(tokenizer, spec.vocab_size)
    check_expansion(tokenizer)
    check_prefixes(tokenizer, spec)
    build = partial(
        build_bert_embedder,
        checkpoint.config,
        checkpoint.weights,
        sentence.pooling,
        sentence.normalize,
        precision,
        target,
    )
    return Plan(spec, tokenizer, {EMBEDDER: build}, partial(_compare, checkpoint, spec, tokenizer, target))


def _check_sizes(config: Mapping[str, Any]) -> None:
    require_sizes(config, "max_position_embeddings", "num_hidden_layers", "num_attention_heads")
    require_sizes(config, "hidden_size", "intermediate_size")
    require_multiple(config, "hidden_size", "num_attention_heads")
    require_number(config, "layer_norm_eps", 0, 1)
    if config.get("pad_token_id") is not None and not _is_row(config["pad_token_id"]):
        raise CheckpointError(f"the checkpoint's pad_token_id is {config['pad_token_id']!r:.40}, not a token id")
    if max_tokens(config) < 1:
        raise CheckpointError(f"max_position_embeddings is {config['max_position_embeddings']}: all are for padding")


def _is_row(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _compare(checkpoint: Checkpoint, spec: ModelSpec, tokenizer: bytes, target: Target, files: GraphFiles) -> Agreement:
    from export.validation.bert import compare_with_transformers  # PyTorch takes seconds to import

    return compare_with_transformers(checkpoint.folder, spec, tokenizer, files[EMBEDDER], target)


def _spec(checkpoint: Checkpoint, sentence: SentenceEmbedding) -> ModelSpec:
    config, vocab_size = checkpoint.config, _vocab_size(checkpoint)
    positions = max_tokens(config)
    rows = _count_rows(checkpoint, POSITION_EMBEDDINGS, "position embeddings")
    if rows != config["max_position_embeddings"]:
        raise CheckpointError(
            f"max_position_embeddings is {config['max_position_embeddings']}, but there are {rows} position embeddings"
        )
    limit = min(sentence.max_tokens or positions, positions)
    return ModelSpec(
        architecture=config["model_type"],
        dimensions=config["hidden_size"],
        vocab_size=vocab_size,
        max_query_tokens=limit,
        max_passage_tokens=limit,
        pooling=sentence.pooling,
        normalize=sentence.normalize,
        query_prefix=sentence.query_prefix,
        passage_prefix=sentence.passage_prefix,
    )


def _vocab_size(checkpoint: Checkpoint) -> int:
    """Return the number of rows of the token embedding table."""
    return _count_rows(checkpoint, WORD_EMBEDDINGS, "token embeddings")


def _count_rows(checkpoint: Checkpoint, table: str, what: str) -> int:
    """Return the number of rows of an embedding table, whatever the prefix of its name."""
    weights, hidden_size = checkpoint.weights, checkpoint.config["hidden_size"]
    tables = [name for name in weights.names if name.endswith(f".{table}")]
    if len(tables) != 1:
        raise CheckpointError(f"the checkpoint has {len(tables)} tensors named {table}, not one")
    shape = weights.shape(tables[0])
    if len(shape) != 2 or shape[1] != hidden_size:
        raise CheckpointError(f"hidden_size is {hidden_size}, but the {what} have the shape {shape}")
    return shape[0]


@dataclass(frozen=True)
class SentenceEmbedding:
    """How a text becomes one vector.

    Attributes:
        pooling: How the last hidden states become one vector.
        normalize: Whether embeddings have length 1.
        max_tokens: Longest sequence; None for as many tokens as there are positions.
        lowercase: Whether the text is lowered first.
        query_prefix: Text put before a query.
        passage_prefix: Text put before a passage.
    """

    pooling: Pooling
    normalize: bool
    max_tokens: int | None
    lowercase: bool
    query_prefix: str
    passage_prefix: str


def read_sentence_embedding(checkpoint: Checkpoint) -> SentenceEmbedding:
    """Read the files of sentence-transformers; a checkpoint without them is mean-pooled and normalised.

    Raises:
        CheckpointError: The files ask for a module other than Transformer, Pooling and Normalize, or for a pooling
            other than mean, cls and max.
    """
    modules = checkpoint.json("modules.json")
    transformer = checkpoint.json("sentence_bert_config.json") or {}
    if transformer.get("max_seq_length") is not None:
        require_sizes(transformer, "max_seq_length")
    if transformer.get("do_lower_case") is not None:
        require_flag(transformer, "do_lower_case")
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
            f"modules.json asks for {unknown[0]}; only Transformer, Pooling and Normalize are supported"
        )
    return paths


def _pooling(checkpoint: Checkpoint, modules: list[Mapping[str, Any]]) -> Pooling:
    path = _module_paths(modules).get("Pooling", "1_Pooling")
    config = checkpoint.require_json(f"{path}/config.json")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise CheckpointError(
            f"{path}/config.json asks for {' + '.join(modes) or 'no pooling'}; only mean, cls or max is supported"
        )
    return _POOLINGS[modes[0]]


def _prefixes(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the query and passage prompts; sentence-transformers also calls passages `document`."""
    if config.get("prompts"):
        require_objects(config, "prompts")
    prompts: Mapping[str, str] = config.get("prompts") or {}
    for name in prompts:
        require_text(prompts, name)
    default = prompts.get(config.get("default_prompt_name") or "", "")
    return prompts.get("query", default), prompts.get("passage", prompts.get("document", default))
