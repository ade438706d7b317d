"""What the towers of CLIP and SigLIP have in common: their layers, patches and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.blocks import EVERYTHING, Reach
from export.graphs.layers import Batch, Layers, Sequences
from export.graphs.weights import Array


@dataclass(frozen=True)
class PixelScale:
    """How pixels from 0 to 255 are normalised, as `preprocessor_config.json` says.

    Attributes:
        factor: By which they are multiplied.
        mean: Then subtracted from each channel.
        std: By which each channel is then divided.
    """

    factor: float
    mean: Sequence[float]
    std: Sequence[float]


def normalize_pixels(layers: Layers, patches: ir.Value, pixels_per_patch: int, scale: PixelScale) -> ir.Value:
    """Record the normalisation of the rows of `patches`.

    Args:
        layers: The graph.
        patches: Pixels of all patches, one after another, `(bytes,)` uint8.
        pixels_per_patch: Pixels of a patch, of three bytes each.
        scale: How they are normalised.

    Returns:
        Rows `(patches, bytes of a patch)` float32.
    """
    op, std = layers.op, np.asarray(scale.std)
    factor = np.tile(scale.factor / std, pixels_per_patch).astype(np.float32)
    offset = np.tile(np.asarray(scale.mean) / std, pixels_per_patch).astype(np.float32)
    rows = op.Reshape(op.Cast(patches, to=ir.DataType.FLOAT), [-1, len(factor)])
    return op.Sub(op.Mul(rows, factor), offset)


def embed_patches(layers: Layers, config: Mapping[str, Any], name: str, patches: ir.Value) -> ir.Value:
    """Record the convolution over patches, as one matrix product: `(patches, hidden size)` float32.

    Args:
        layers: The graph and the checkpoint.
        config: `vision_config` of the checkpoint.
        name: Name of the convolution.
        patches: Normalised pixels `(patches, patch size² * channels)`, each patch flattened row, column, channel.
    """
    op, width = layers.op, config["hidden_size"]
    pixels: int = config["patch_size"] ** 2 * config["num_channels"]

    def kernel() -> Array:
        """Return the convolution's kernel as a matrix `(rows * columns * channels, outputs)`."""
        stored = layers.weights.read(f"{name}.weight")
        return np.reshape(stored.transpose(2, 3, 1, 0), (pixels, width))

    matrix = op.weight(f"{name}.kernel", kernel, [pixels, width], layers.dtype)
    embedded = layers.widen(layers.multiply(patches, matrix))
    return op.Add(embedded, layers.vector(f"{name}.bias")) if f"{name}.bias" in layers.weights.names else embedded


def grid_side(config: Mapping[str, Any]) -> int:
    """Return the number of patches along the side of a tile."""
    return int(config["image_size"]) // int(config["patch_size"])


def cut_images(layers: Layers, config: Mapping[str, Any], hidden: ir.Value, rows_per_image: int) -> Sequences:
    """Record the layout of rows `(rows, hidden size)`, of which each image or tile has the same number."""
    op, rows = layers.op, layers.op.Shape(hidden, start=0, end=1)
    lengths = op.Expand([rows_per_image], op.Div(rows, rows_per_image))
    return layers.sequences(Batch(lengths, rows, _heads(config), length=rows_per_image))


def record_layers(
    layers: Layers, config: Mapping[str, Any], name: str, hidden: ir.Value, sequences: Sequences
) -> ir.Value:
    """Record all layers of a tower, whose tensors begin with `<name>encoder.layers.`: `(rows, hidden size)`."""
    for index in range(config["num_hidden_layers"]):
        with layers.op.scope(f"layer.{index}"):
            hidden = _layer(layers, config, f"{name}encoder.layers.{index}", hidden, sequences)
    return hidden


def record_text_tower(
    layers: Layers,
    config: Mapping[str, Any],
    input_ids: ir.Value,
    lengths: ir.Value,
    reach: Reach = EVERYTHING,
) -> tuple[ir.Value, Sequences]:
    """Record the text tower up to its last normalisation, as `RecordEncoder` of `text_embedder` describes it.

    Args:
        layers: The graph and the checkpoint.
        config: `text_config` of the checkpoint.
        input_ids: Token ids `(tokens,)` int64.
        lengths: Length of each sequence `(sequences,)` int64.
        reach: Which tokens a token attends to.
    """
    op = layers.op
    sequences = layers.sequences(Batch(lengths, op.Shape(input_ids), _heads(config), reach=reach))
    with op.scope("embeddings"):
        positions = layers.vector("text_model.embeddings.position_embedding.weight")
        words = layers.embedding(input_ids, "text_model.embeddings.token_embedding")
        hidden = op.Add(words, op.Gather(positions, sequences.packing.position))
    hidden = record_layers(layers, config, "text_model.", hidden, sequences)
    return layers.layer_norm(hidden, "text_model.final_layer_norm", config["layer_norm_eps"]), sequences


def _heads(config: Mapping[str, Any]) -> Heads:
    count = config["num_attention_heads"]
    return Heads(count, count, config["hidden_size"] // count)


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
