"""SigLIP's vision tower, from packed pixel blocks of tiles to patch vectors, and its pooling of these to one vector."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from export.graphs.layers import Layers
from export.graphs.towers import cut_images, embed_patches, grid_side, record_layers
from export.graphs.weights import Array


def record_vision_tower(
    layers: Layers, config: Mapping[str, Any], name: str, patches: ir.Value, block_size: int = 1
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
    with layers.op.scope("embeddings"):
        hidden = _embed(layers, config, f"{name}embeddings", patches, block_size)
    sequences = cut_images(layers, config, hidden, grid_side(config) ** 2)
    hidden = record_layers(layers, config, name, hidden, sequences)
    return layers.layer_norm(hidden, f"{name}post_layernorm", config["layer_norm_eps"])


def record_image_tower(layers: Layers, config: Mapping[str, Any], patches: ir.Value) -> ir.Value:
    """Record the tower of SigLIP itself, with its head.

    Args:
        layers: The graph and the checkpoint.
        config: `vision_config` of the checkpoint.
        patches: As in `record_vision_tower`, ordered by image, then row by row.

    Returns:
        Vectors `(images, hidden size)` float32.
    """
    hidden = record_vision_tower(layers, config, "vision_model.", patches)
    with layers.op.scope("pooling"):
        return _pool_by_attention(replace(layers, precision="fp32"), config, "vision_model.head", hidden)


def _pool_by_attention(layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value) -> ir.Value:
    """Record the attention of one learned query, the probe, to all patches of an image, and the MLP that follows.

    The query `q` of a head is the same for all images, so the product of its keys `K x + b` and `q` is that of `x` and
    `Kᵀ q`, up to what is equal for all patches, which the softmax ignores. The values are taken from the mean patch, as
    they are linear too. So no matrix is multiplied with every patch but one of a column per head.
    """
    op, read = layers.op, layers.weights.read
    width, heads = config["hidden_size"], config["num_attention_heads"]
    size = width // heads

    def keys_of_probe() -> Array:
        """Return `Kᵀ q / √size` of each head, `(hidden size, heads)`."""
        stacked = read(f"{name}.attention.in_proj_weight")
        query = stacked[:width] @ read(f"{name}.probe").ravel() + read(f"{name}.attention.in_proj_bias")[:width]
        keys = stacked[width : 2 * width].reshape(heads, size, width)
        scores: Array = np.einsum("hsw,hs->wh", keys, query.reshape(heads, size)) / np.float32(size**0.5)
        return scores

    def values() -> Array:
        """Return the matrix of each head's values, `(heads, hidden size, head size)`."""
        stacked = read(f"{name}.attention.in_proj_weight")[2 * width :]
        return np.transpose(stacked.reshape(heads, size, width), (0, 2, 1))

    def value_bias() -> Array:
        return read(f"{name}.attention.in_proj_bias")[2 * width :]

    images = op.Reshape(hidden, [-1, grid_side(config) ** 2, width])
    keys = op.weight(f"{name}.keys_of_probe", keys_of_probe, [width, heads], ir.DataType.FLOAT)
    scores = op.Transpose(op.MatMul(images, keys), perm=[0, 2, 1])
    mean_patches = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), images), perm=[1, 0, 2])  # by head, then image
    matrices = op.weight(f"{name}.values", values, [heads, width, size], ir.DataType.FLOAT)
    attended = op.Reshape(op.Transpose(op.MatMul(mean_patches, matrices), perm=[1, 0, 2]), [-1, width])
    attended = op.Add(attended, op.weight(f"{name}.value_bias", value_bias, [width], ir.DataType.FLOAT))
    pooled = layers.linear(attended, f"{name}.attention.out_proj")
    normalized = layers.layer_norm(pooled, f"{name}.layernorm", config["layer_norm_eps"])
    outer = layers.feed_forward(normalized, f"{name}.mlp.fc1", f"{name}.mlp.fc2", config["hidden_act"])
    return layers.add(pooled, outer)


def _embed(layers: Layers, config: Mapping[str, Any], name: str, patches: ir.Value, block_size: int) -> ir.Value:
    op, side, width = layers.op, grid_side(config), config["hidden_size"]

    def positions() -> Array:
        """Return the rows of the position table in the order of blocks."""
        blocks = np.arange(side * side).reshape(side // block_size, block_size, side // block_size, block_size)
        table = layers.weights.read(f"{name}.position_embedding.weight")
        return np.take(table, blocks.transpose(0, 2, 1, 3).ravel(), axis=0)

    embedded = embed_patches(layers, config, f"{name}.patch_embedding", patches)
    table = op.weight(f"{name}.position_embedding.blocks", positions, [side * side, width], ir.DataType.FLOAT)
    return op.Reshape(op.Add(op.Reshape(embedded, [-1, side * side, width]), table), [-1, width])
