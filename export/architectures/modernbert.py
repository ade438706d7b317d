"""ModernBERT and what is trained from it, such as GTE ModernBERT."""

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
from export.graphs.layers import Layers, Sequences
from export.graphs.modernbert import STACKED, local_rope_theta, record_modernbert
from export.graphs.text_embedder import DenseLayer, RecordEncoder, SentenceHead, build_text_embedder
from export.graphs.weights import SplitWeights, find_prefix
from export.spec import Pooling, Precision, Target

_POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean"}


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    weights, width = SplitWeights(checkpoint.weights, STACKED), checkpoint.config["hidden_size"]
    record, vocab_size = _read(checkpoint)
    build = partial(build_text_embedder, weights, record, width)
    encoder = TextEncoder(build, width, vocab_size, checkpoint.config["max_position_embeddings"])
    return plan_text_embedder(checkpoint, precision, target, encoder)


def plan_reranker(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a cross-encoder: one graph, the reranker.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    config = checkpoint.config
    record, vocab_size = _read(checkpoint)
    if config["classifier_pooling"] not in _POOLINGS:
        raise CheckpointError(f"classifier_pooling {config['classifier_pooling']!r:.40} is not supported")
    norm = ("head.norm", config["norm_eps"])
    inner = DenseLayer("head.dense", config["hidden_size"], config["classifier_activation"], norm)
    encoder = PairEncoder(
        SplitWeights(checkpoint.weights, STACKED),
        record,
        SentenceHead(_POOLINGS[config["classifier_pooling"]], (inner, DenseLayer("classifier", 1)), normalize=False),
        vocab_size,
        config["max_position_embeddings"],
        read_cross_encoder(checkpoint, types=1),
    )
    return plan_text_reranker(checkpoint, precision, target, encoder)


def _read(checkpoint: Checkpoint) -> tuple[RecordEncoder, int]:
    """Return what records the encoder, and the rows of its token embedding table."""
    config = checkpoint.config
    _check(config)
    prefix = find_prefix(checkpoint.weights, "embeddings.tok_embeddings.weight", ("", "model."))

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        return record_modernbert(layers, config, prefix, input_ids, lengths)

    return record, count_rows(checkpoint, f"{prefix}embeddings.tok_embeddings.weight", "token embeddings")


def _check(config: Mapping[str, Any]) -> None:
    require_sizes(config, "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    require_sizes(config, "max_position_embeddings", "local_attention", "global_attn_every_n_layers")
    require_multiple(config, "hidden_size", "num_attention_heads")
    require_number(config, "norm_eps", 0, 1)
    require_number(config, "global_rope_theta", 0, 1e12)
    require_number({"local_rope_theta": local_rope_theta(config)}, "local_rope_theta", 0, 1e12)
    if config["hidden_size"] // config["num_attention_heads"] % 2:
        raise CheckpointError("the heads of the checkpoint have an odd number of components")
