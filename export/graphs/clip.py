"""CLIP's image tower, from patches to vectors in the space that texts share."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from export.graphs.layers import Layers
from export.graphs.towers import cut_images, embed_patches, grid_side, record_layers


def record_image_tower(layers: Layers, config: Mapping[str, Any], patches: ir.Value) -> ir.Value:
    """Record the tower and its projection.

    Args:
        layers: The graph and the checkpoint.
        config: `vision_config` of the checkpoint.
        patches: Normalised pixels `(patches, patch size² * channels)` float32, ordered by image, then row by row, each
            patch flattened row, column, channel.

    Returns:
        Vectors `(images, projection size)` float32.
    """
    op, width, epsilon = layers.op, config["hidden_size"], config["layer_norm_eps"]
    rows_per_image = grid_side(config) ** 2 + 1  # the first is learned, and becomes the vector of the image
    with op.scope("embeddings"):
        embedded = embed_patches(layers, config, "vision_model.embeddings.patch_embedding", patches)
        images = op.Reshape(embedded, [-1, rows_per_image - 1, width])
        shape = op.Concat(op.Shape(images, start=0, end=1), [1, width], axis=0)
        first = op.Expand(layers.vector("vision_model.embeddings.class_embedding"), shape)
        positions = layers.vector("vision_model.embeddings.position_embedding.weight")
        hidden = op.Reshape(op.Add(op.Concat(first, images, axis=1), positions), [-1, width])
        hidden = layers.layer_norm(hidden, "vision_model.pre_layrnorm", epsilon)
    sequences = cut_images(layers, config, hidden, rows_per_image)
    hidden = record_layers(layers, config, "vision_model.", hidden, sequences)
    with op.scope("pooling"):
        pooled = op.Gather(op.Reshape(hidden, [-1, rows_per_image, width]), 0, axis=1)
        normalized = layers.layer_norm(pooled, "vision_model.post_layernorm", epsilon)
        # In int8, this one product would lose more than it saves.
        projection = replace(layers, precision="fp32") if layers.precision == "int8" else layers
        return projection.widen(projection.linear(normalized, "visual_projection"))
