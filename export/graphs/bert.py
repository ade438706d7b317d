"""The BERT family, from packed token ids to hidden states."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.layers import Batch, Layers, Sequences
from export.graphs.packed import Packing
from export.graphs.weights import Array, Weights, find_prefix

# Models whose position table begins with rows for padding: the first position is pad_token_id + 1.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})
_MODEL_TYPES = _POSITIONS_AFTER_PADDING | {"bert"}


def record_bert(
    layers: Layers,
    config: Mapping[str, Any],
    input_ids: ir.Value,
    lengths: ir.Value,
    token_types: ir.Value | None = None,
) -> tuple[ir.Value, Sequences]:
    """Record a BERT-like encoder, as `RecordEncoder` of `text_embedder` describes it.

    Args:
        layers: The graph and the checkpoint.
        config: The checkpoint's `config.json`.
        input_ids: Token ids `(tokens,)` int64.
        lengths: Length of each sequence `(sequences,)` int64.
        token_types: Row of the type table for each token `(tokens,)` int64; None for the first row.

    Raises:
        ValueError: The config asks for something this graph does not support, or the checkpoint lacks a tensor.
    """
    _check_config(config)
    op, prefix, count = layers.op, find_bert(layers.weights, config), config["num_attention_heads"]
    heads = Heads(count, count, config["hidden_size"] // count)
    sequences = layers.sequences(Batch(lengths, op.Shape(input_ids), heads))
    with op.scope("embeddings"):
        hidden = _embed(layers, config, f"{prefix}embeddings", input_ids, sequences.packing, token_types)
    for index in range(config["num_hidden_layers"]):
        with op.scope(f"layer.{index}"):
            hidden = _layer(layers, config, f"{prefix}encoder.layer.{index}", hidden, sequences)
    return hidden, sequences


def find_bert(weights: Weights, config: Mapping[str, Any]) -> str:
    """Return the prefix of the encoder's tensors, empty or ending in a point."""
    family = config["model_type"].replace("xlm-", "")
    return find_prefix(weights, "embeddings.word_embeddings.weight", ("", f"{family}."))


def max_tokens(config: Mapping[str, Any]) -> int:
    """Return the length of the longest sequence for which the position table has rows."""
    return int(config["max_position_embeddings"]) - _first_position(config)


def _first_position(config: Mapping[str, Any]) -> int:
    return int(config["pad_token_id"]) + 1 if config["model_type"] in _POSITIONS_AFTER_PADDING else 0


def _check_config(config: Mapping[str, Any]) -> None:
    if config["model_type"] not in _MODEL_TYPES:
        raise ValueError(
            f"model_type {config['model_type']!r} is not supported (supported: {', '.join(sorted(_MODEL_TYPES))})"
        )
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ValueError(f"position_embedding_type {positions!r} is not supported; only 'absolute' is")
    if config.get("is_decoder"):
        raise ValueError("is_decoder is not supported: attention is bidirectional")


def _embed(
    layers: Layers,
    config: Mapping[str, Any],
    name: str,
    input_ids: ir.Value,
    packing: Packing,
    token_types: ir.Value | None,
) -> ir.Value:
    """Return the normalised sum of word, position and type embeddings, `(tokens, hidden size)`."""
    op, weights = layers.op, layers.weights
    first = _first_position(config)
    rows, dims = weights.shape(f"{name}.position_embeddings.weight")

    def positions_with_type() -> Array:
        table: Array = weights.read(f"{name}.position_embeddings.weight")[first:]
        return np.add(table, weights.read(f"{name}.token_type_embeddings.weight")[0])

    def further_types() -> Array:
        types: Array = weights.read(f"{name}.token_type_embeddings.weight")
        return np.subtract(types, types[0])  # the first is added to the positions

    table = op.weight(f"{name}.positions_with_type", positions_with_type, [rows - first, dims], ir.DataType.FLOAT)
    words = layers.embedding(input_ids, f"{name}.word_embeddings")
    summed = op.Add(words, op.Gather(table, packing.position))
    if token_types is not None:
        shape = weights.shape(f"{name}.token_type_embeddings.weight")
        types = op.weight(f"{name}.further_types", further_types, shape, ir.DataType.FLOAT)
        summed = op.Add(summed, op.Gather(types, token_types))
    return layers.layer_norm(summed, f"{name}.LayerNorm", config["layer_norm_eps"])


def _layer(layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value, sequences: Sequences) -> ir.Value:
    """Record one encoder layer: attention and MLP, each normalised after its residual is added."""
    op, epsilon = layers.op, config["layer_norm_eps"]
    with op.scope("attention"):
        query, key, value = (f"{name}.attention.self.{projection}" for projection in ("query", "key", "value"))
        attended = layers.linear(sequences.attend(hidden, query, key, value), f"{name}.attention.output.dense")
        hidden = layers.layer_norm(layers.add(hidden, attended), f"{name}.attention.output.LayerNorm", epsilon)
    with op.scope("mlp"):
        outer = layers.feed_forward(hidden, f"{name}.intermediate.dense", f"{name}.output.dense", config["hidden_act"])
        return layers.layer_norm(layers.add(hidden, outer), f"{name}.output.LayerNorm", epsilon)
