"""ModernBERT, from packed token ids to hidden states: most layers attend only to near tokens."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.blocks import EVERYTHING, Reach
from export.graphs.layers import Batch, Layers, Sequences
from export.graphs.rope import rope_frequencies


def record_modernbert(
    layers: Layers, config: Mapping[str, Any], prefix: str, input_ids: ir.Value, lengths: ir.Value
) -> tuple[ir.Value, Sequences]:
    """Record the encoder, as `RecordEncoder` of `text_embedder` describes it.

    Args:
        layers: The graph, and the checkpoint with its stacked matrices split as `split_matrices` does.
        config: The checkpoint's `config.json`.
        prefix: Prefix of the tensors, empty or ending in a point.
        input_ids: Token ids `(tokens,)` int64.
        lengths: Length of each sequence `(sequences,)` int64.
    """
    op, epsilon = layers.op, config["norm_eps"]
    window = config["local_attention"] // 2
    everywhere = _sequences(layers, config, input_ids, lengths, config["global_rope_theta"], EVERYTHING)
    nearby = _sequences(layers, config, input_ids, lengths, local_rope_theta(config), Reach(window, window))
    with op.scope("embeddings"):
        embedded = layers.embedding(input_ids, f"{prefix}embeddings.tok_embeddings")
        hidden = layers.layer_norm(embedded, f"{prefix}embeddings.norm", epsilon)
    for index in range(config["num_hidden_layers"]):
        name = f"{prefix}layers.{index}"
        sequences = nearby if index % config["global_attn_every_n_layers"] else everywhere
        with op.scope(f"layer.{index}/attention"):
            # The embeddings are normalised already.
            normalized = layers.layer_norm(hidden, f"{name}.attn_norm", epsilon) if index else hidden
            query, key, value = (f"{name}.attn.{part}" for part in QKV)
            attended = sequences.attend(normalized, query, key, value)
            hidden = layers.add(hidden, layers.linear(attended, f"{name}.attn.Wo"))
        with op.scope(f"layer.{index}/mlp"):
            normalized = layers.layer_norm(hidden, f"{name}.mlp_norm", epsilon)
            gate, up, down = (f"{name}.mlp.{matrix}" for matrix in (*GLU, "Wo"))
            outer = layers.gated_feed_forward(normalized, gate, up, down, config["hidden_activation"])
            hidden = layers.add(hidden, outer)
    return layers.layer_norm(hidden, f"{prefix}final_norm", epsilon), everywhere


QKV = ("query", "key", "value")
GLU = ("gate", "up")
STACKED: Mapping[str, tuple[str, ...]] = {"Wqkv": QKV, "Wi": GLU}
"""What the rows of a stacked matrix hold, in equal parts, by the last part of its name."""


def local_rope_theta(config: Mapping[str, Any]) -> float:
    """Return the base of the rotary positions of local layers."""
    local = config.get("local_rope_theta")
    return float(config["global_rope_theta"] if local is None else local)


def _sequences(
    layers: Layers, config: Mapping[str, Any], input_ids: ir.Value, lengths: ir.Value, theta: float, reach: Reach
) -> Sequences:
    count = config["num_attention_heads"]
    heads = Heads(count, count, config["hidden_size"] // count)
    frequencies = rope_frequencies({"rope_theta": theta}, heads.size)
    rows = layers.op.Shape(input_ids)
    return layers.sequences(Batch(lengths, rows, heads, frequencies, reach=reach))
