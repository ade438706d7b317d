"""Text encoders of the BERT family, with or without sentence-transformers files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import onnx_ir as ir

from export.architectures import Plan
from export.architectures.config import require_multiple, require_number, require_sizes
from export.architectures.text import TextEncoder, count_rows, plan_text_embedder
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.bert import find_bert, max_tokens, record_bert
from export.graphs.layers import Layers, Sequences
from export.graphs.text_embedder import build_text_embedder
from export.spec import Precision, Target


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    config = checkpoint.config
    _check_sizes(config)
    prefix = f"{find_bert(checkpoint.weights, config)}embeddings"
    rows = count_rows(checkpoint, f"{prefix}.position_embeddings.weight", "position embeddings")
    if rows != config["max_position_embeddings"]:
        raise CheckpointError(
            f"max_position_embeddings is {config['max_position_embeddings']}, but there are {rows} position embeddings"
        )

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        return record_bert(layers, config, input_ids, lengths)

    width = config["hidden_size"]
    encoder = TextEncoder(
        partial(build_text_embedder, checkpoint.weights, record, width),
        width,
        vocab_size=count_rows(checkpoint, f"{prefix}.word_embeddings.weight", "token embeddings"),
        max_tokens=max_tokens(config),
    )
    return plan_text_embedder(checkpoint, precision, target, encoder)


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
