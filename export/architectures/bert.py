"""Text encoders of the BERT family, with or without sentence-transformers files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import onnx_ir as ir

from export.architectures import Plan
from export.architectures.config import require_multiple, require_number, require_sizes
from export.architectures.reranker import PairEncoder, plan_text_reranker, read_cross_encoder
from export.architectures.text import TextEncoder, count_rows, plan_text_embedder
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.bert import find_bert, max_tokens, record_bert
from export.graphs.layers import Layers, Sequences
from export.graphs.text_embedder import DenseLayer, SentenceHead, build_text_embedder
from export.spec import Precision, Target


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    config = checkpoint.config
    vocab_size = _check(checkpoint)

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        return record_bert(layers, config, input_ids, lengths)

    width = config["hidden_size"]
    build = partial(build_text_embedder, checkpoint.weights, record, width)
    encoder = TextEncoder(build, width, vocab_size, max_tokens(config))
    return plan_text_embedder(checkpoint, precision, target, encoder)


def plan_reranker(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a cross-encoder: one graph, the reranker.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    config, prefix = checkpoint.config, find_bert(checkpoint.weights, checkpoint.config)
    vocab_size = _check(checkpoint)
    if config["model_type"] == "bert":
        inner, outer = f"{prefix}pooler.dense", "classifier"
        types, _ = checkpoint.weights.shape(f"{prefix}embeddings.token_type_embeddings.weight")
    else:  # transformers gives RoBERTa's kind no token types
        inner, outer, types = "classifier.dense", "classifier.out_proj", 1
    rank = read_cross_encoder(checkpoint, types)

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        op = layers.op
        token_types = op.input("token_types", ir.DataType.INT64, ["tokens"]) if rank.token_types else None
        return record_bert(layers, config, input_ids, lengths, token_types)

    head = SentenceHead("cls", (DenseLayer(inner, config["hidden_size"], "tanh"), DenseLayer(outer, 1)), False)
    encoder = PairEncoder(checkpoint.weights, record, head, vocab_size, max_tokens(config), rank)
    return plan_text_reranker(checkpoint, precision, target, encoder)


def _check(checkpoint: Checkpoint) -> int:
    """Refuse impossible numbers, and return the rows of the token embedding table."""
    config = checkpoint.config
    _check_sizes(config)
    prefix = f"{find_bert(checkpoint.weights, config)}embeddings"
    rows = count_rows(checkpoint, f"{prefix}.position_embeddings.weight", "position embeddings")
    if rows != config["max_position_embeddings"]:
        raise CheckpointError(
            f"max_position_embeddings is {config['max_position_embeddings']}, but there are {rows} position embeddings"
        )
    return count_rows(checkpoint, f"{prefix}.word_embeddings.weight", "token embeddings")


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
