"""Llama with bidirectional attention, from packed token vectors to hidden states."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.layers import Layers, Sequences


def read_heads(config: Mapping[str, Any]) -> Heads:
    """Return the division into heads that a config describes."""
    query = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // query
    return Heads(query, config.get("num_key_value_heads") or query, size)


def record_llama(
    layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value, sequences: Sequences
) -> ir.Value:
    """Record all layers and the final normalisation.

    Args:
        layers: The graph and the checkpoint.
        config: Config of the language model.
        name: Prefix of the tensors, ending in a point.
        hidden: Embedded input, `(tokens, hidden size)` float32.
        sequences: The sequences of the batch, whose queries and keys are rotated.

    Returns:
        Hidden states `(tokens, hidden size)`.
    """
    op, epsilon = layers.op, config["rms_norm_eps"]
    for index in range(config["num_hidden_layers"]):
        layer = f"{name}layers.{index}"
        with op.scope(f"layer.{index}/attention"):
            normalized = layers.rms_norm(hidden, f"{layer}.input_layernorm", epsilon)
            projections = [f"{layer}.self_attn.{projection}" for projection in ("q_proj", "k_proj", "v_proj")]
            attended = sequences.attend(normalized, *projections)
            hidden = layers.add(hidden, layers.linear(attended, f"{layer}.self_attn.o_proj"))
        with op.scope(f"layer.{index}/mlp"):
            normalized = layers.rms_norm(hidden, f"{layer}.post_attention_layernorm", epsilon)
            matrices = [f"{layer}.mlp.{matrix}" for matrix in ("gate_proj", "up_proj", "down_proj")]
            hidden = layers.add(hidden, layers.gated_feed_forward(normalized, *matrices))
    return layers.rms_norm(hidden, f"{name}norm", epsilon)
