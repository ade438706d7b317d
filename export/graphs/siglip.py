"""SigLIP's vision tower, from packed pixel blocks of tiles to patch vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.layers import Batch, Layers, Sequences
from export.graphs.weights import Array


def record_vision_tower(
    layers: Layers, config: Mapping[str, Any], name: str, patches: ir.Value, block_size: int
) -> ir.Value:
    """Record the tower up to its last normalisation, without the pooling head.

    Attention does not depend on the order of its rows, so patches keep the order in which they arrive, and the position
    table is put in that order instead.

    Args:
        layers: The graph and the checkpoint.
        config: `vision_config` of the checkpoint.
        name: Prefix of the tower's tensors, ending in a point.
        patches: Pixels from -1 to 1, `(patches, patch size² * channels)` float32, each patch flattened row, column,
            channel. They are ordered by tile, then by square block of `block_size²` patches.
        block_size: Patches along the side of a block.

    Returns:
        Patch vectors `(patches, hidden size)` float32.
    """
    op = layers.op
    with op.scope("embeddings"):
        hidden = _embed(layers, config, f"{name}embeddings", patches, block_size)
    sequences = _cut_tiles(layers, config, hidden)
    for index in range(config["num_hidden_layers"]):
        with op.scope(f"layer.{index}"):
            hidden = _layer(layers, config, f"{name}encoder.layers.{index}", hidden, sequences)
    return layers.layer_norm(hidden, f"{name}post_layernorm", config["layer_norm_eps"])


def grid_side(config: Mapping[str, Any]) -> int:
    """Return the number of patches along the side of a tile."""
    return int(config["image_size"]) // int(config["patch_size"])


def _embed(layers: Layers, config: Mapping[str, Any], name: str, patches: ir.Value, block_size: int) -> ir.Value:
    op, read = layers.op, layers.weights.read
    width: int = config["hidden_size"]
    side = grid_side(config)
    pixels: int = config["patch_size"] ** 2 * config["num_channels"]

    def kernel() -> Array:
        """Return the convolution's kernel as a matrix `(rows * columns * channels, outputs)`."""
        stored = read(f"{name}.patch_embedding.weight")
        return np.reshape(stored.transpose(2, 3, 1, 0), (pixels, width))

    def positions() -> Array:
        """Return the rows of the position table in the order of blocks."""
        blocks = np.arange(side * side).reshape(side // block_size, block_size, side // block_size, block_size)
        return np.take(read(f"{name}.position_embedding.weight"), blocks.transpose(0, 2, 1, 3).ravel(), axis=0)

    matrix = op.weight(f"{name}.patch_embedding.kernel", kernel, [pixels, width], layers.dtype)
    embedded = op.Add(layers.widen(layers.multiply(patches, matrix)), layers.vector(f"{name}.patch_embedding.bias"))
    table = op.weight(f"{name}.position_embedding.blocks", positions, [side * side, width], ir.DataType.FLOAT)
    return op.Reshape(op.Add(op.Reshape(embedded, [-1, side * side, width]), table), [-1, width])


def _cut_tiles(layers: Layers, config: Mapping[str, Any], hidden: ir.Value) -> Sequences:
    """Record the layout of the patches, with each tile as a sequence."""
    op, patches_per_tile, count = layers.op, grid_side(config) ** 2, config["num_attention_heads"]
    patches = op.Shape(hidden, start=0, end=1)
    lengths = op.Expand([patches_per_tile], op.Div(patches, patches_per_tile))
    heads = Heads(count, count, config["hidden_size"] // count)
    return layers.sequences(Batch(lengths, patches, heads, length=patches_per_tile))


def _layer(layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value, sequences: Sequences) -> ir.Value:
    """Record one encoder layer: attention and MLP of the normalised input, each added to its input."""
    op, epsilon = layers.op, config["layer_norm_eps"]
    with op.scope("attention"):
        normalized = layers.layer_norm(hidden, f"{name}.layer_norm1", epsilon)
        query, key, value = (f"{name}.self_attn.{projection}" for projection in ("q_proj", "k_proj", "v_proj"))
        attended = sequences.attend(normalized, query, key, value)
        hidden = layers.add(hidden, layers.linear(attended, f"{name}.self_attn.out_proj"))
    with op.scope("mlp"):
        normalized = layers.layer_norm(hidden, f"{name}.layer_norm2", epsilon)
        return layers.add(
            hidden, layers.feed_forward(normalized, f"{name}.mlp.fc1", f"{name}.mlp.fc2", config["hidden_act"])
        )
