"""Llama with bidirectional attention, from packed token vectors to hidden states."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from export.graphs.attention import Heads, attend, split_heads
from export.graphs.blocks import Blocks
from export.graphs.layers import Layers
from export.graphs.rope import Rotation, record_rotation, rope_frequencies, rotate


def read_heads(config: Mapping[str, Any]) -> Heads:
    """Return the division into heads that a config describes."""
    query = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // query
    return Heads(query, config.get("num_key_value_heads") or query, size)


def record_llama(
    layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value, position: ir.Value, blocks: Blocks
) -> ir.Value:
    """Record all layers and the final normalisation.

    Args:
        layers: The graph and the checkpoint.
        config: Config of the language model.
        name: Prefix of the tensors, ending in a point.
        hidden: Embedded input, `(tokens, hidden size)` float32.
        position: Position of each token in its sequence, `(tokens,)` int64.
        blocks: The batch cut into blocks.

    Returns:
        Hidden states, as `hidden`.
    """
    op, heads = layers.op, read_heads(config)
    with op.scope("rotation"):
        rotation = record_rotation(op, position, rope_frequencies(config, heads.size))
    for index in range(config["num_hidden_layers"]):
        layer_name, epsilon = f"{name}layers.{index}", config["rms_norm_eps"]
        with op.scope(f"layer.{index}/attention"):
            normalized = layers.rms_norm(hidden, f"{layer_name}.input_layernorm", epsilon)
            hidden = op.Add(hidden, _attention(layers, f"{layer_name}.self_attn", normalized, heads, rotation, blocks))
        with op.scope(f"layer.{index}/mlp"):
            normalized = layers.rms_norm(hidden, f"{layer_name}.post_attention_layernorm", epsilon)
            hidden = op.Add(hidden, _mlp(layers, f"{layer_name}.mlp", normalized))
    return layers.rms_norm(hidden, f"{name}norm", config["rms_norm_eps"])


def _attention(
    layers: Layers, name: str, hidden: ir.Value, heads: Heads, rotation: Rotation, blocks: Blocks
) -> ir.Value:
    op, key_width = layers.op, heads.key_value * heads.size
    projected = layers.linear(hidden, f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
    query_and_key, values = op.split(projected, [heads.query * heads.size + key_width, key_width])
    rotated = rotate(op, query_and_key, rotation, heads.size)
    query, key = split_heads(op, rotated, heads.size, heads.query, heads.key_value)
    [value] = split_heads(op, values, heads.size, heads.key_value)
    return layers.linear(attend(op, query, key, value, heads, blocks, layers.dtype), f"{name}.o_proj")


def _mlp(layers: Layers, name: str, hidden: ir.Value) -> ir.Value:
    op = layers.op
    gate = layers.linear(hidden, f"{name}.gate_proj")
    up = layers.linear(hidden, f"{name}.up_proj")
    return layers.linear(op.Mul(op.Mul(gate, op.Sigmoid(gate)), up), f"{name}.down_proj")
