"""Llama Nemotron VL: a vision encoder, and an embedder or reranker of text and image tokens."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from export.graphs.builder import GraphBuilder, build_model
from export.graphs.decoder import Decoder, LayerKind
from export.graphs.layers import Layers, Precision
from export.graphs.packed import Packing
from export.graphs.pooling import Pooling, normalize_rows
from export.graphs.siglip import record_vision_tower
from export.graphs.targets import Target, bind_layers
from export.graphs.towers import grid_side
from export.graphs.weights import Weights, find_prefix

POOLINGS: dict[str, Pooling] = {"avg": "mean", "cls": "cls"}
_PROJECTOR_EPSILON = 1e-5  # the default of torch.nn.LayerNorm, which the projector uses


def build_vision_encoder(
    config: Mapping[str, Any], weights: Weights, precision: Precision = "fp32", target: Target = "cpu"
) -> ir.Model:
    """Build the graph from pixels to vectors of the language model's width.

    Args:
        config: The checkpoint's `config.json`.
        weights: Tensors of the checkpoint.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the input `patches` uint8 `(rows * bytes of a row,)`, in whole tiles, and the output `image_embeds`
        float32 `(rows, hidden size)`, one row for each row of `patches`.

    Raises:
        ValueError: The config asks for something this graph does not support, or the checkpoint lacks a tensor.
    """
    _check_config(config)
    vision = config["vision_config"]
    block = image_token_side(config)
    prefix = find_prefix(weights, "embeddings.patch_embedding.weight", ("vision_model.", "vision_model.vision_model."))
    op = GraphBuilder()
    layers = bind_layers(op, weights, precision, target)
    patches = op.input("patches", ir.DataType.UINT8, ["patch_bytes"])
    with op.scope("pixels"):
        pixels = op.Reshape(
            op.Cast(patches, to=ir.DataType.FLOAT), [-1, vision["num_channels"] * vision["patch_size"] ** 2]
        )
        pixels = op.Sub(op.Div(pixels, 127.5), 1.0)
    with op.scope("vision"):
        hidden = record_vision_tower(layers, vision, prefix, pixels, block)
    projector = replace(layers, precision="fp32") if precision == "int8" else layers  # it is a hundredth of the work
    with op.scope("projector"):
        # Pixel shuffle: the patches of an image token are already adjacent.
        shuffled = op.Reshape(hidden, [-1, block * block * vision["hidden_size"]])
        normalized = projector.layer_norm(shuffled, "mlp1.0", _PROJECTOR_EPSILON)
        image_embeds = projector.widen(projector.feed_forward(normalized, "mlp1.1", "mlp1.3", "gelu"))
    return build_model(op, "vision_encoder", "image_embeds", image_embeds, config["llm_config"]["hidden_size"])


def build_embedder(
    config: Mapping[str, Any], weights: Weights, precision: Precision = "fp32", target: Target = "cpu"
) -> ir.Model:
    """Build the graph from token ids and image vectors to embeddings.

    Args:
        config: The checkpoint's `config.json`.
        weights: Tensors of the checkpoint.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the inputs `input_ids` int64 `(tokens,)`, `image_embeds` float32 `(image rows * hidden size,)`,
        `sequence_lengths` and `image_rows` int32 `(sequences,)`, and the output `embeddings` float32
        `(sequences, hidden size)`, NaN for an empty sequence. A sequence may have image rows but no image tokens, as
        texts do; the rows are not read.

    Raises:
        ValueError: The config asks for something this graph does not support, or the checkpoint lacks a tensor.
    """
    layers, pooled = _record_language_model(config, weights, precision, target)
    op = layers.op
    with op.scope("pooling"):
        embeddings = normalize_rows(op, pooled)
    return build_model(op, "embedder", "embeddings", embeddings, config["llm_config"]["hidden_size"])


def build_reranker(
    config: Mapping[str, Any], weights: Weights, precision: Precision = "fp32", target: Target = "cpu"
) -> ir.Model:
    """Build the graph from token ids and image vectors to scores.

    Args:
        config: The checkpoint's `config.json`, whose `temperature` divides the scores.
        weights: Tensors of the checkpoint, `score.weight` `(1, hidden size)` among them.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the inputs of `build_embedder`, and the output `scores` float32 `(sequences,)`, NaN for an empty
        sequence.

    Raises:
        ValueError: The config asks for something this graph does not support, or the checkpoint lacks a tensor.
    """
    layers, pooled = _record_language_model(config, weights, precision, target)
    op, head = layers.op, replace(layers, precision="fp32")  # as in the model's own code
    with op.scope("score"):
        scores = op.Div(head.linear(pooled, "score"), float(config.get("temperature", 1.0)))
        return build_model(op, "reranker", "scores", op.Reshape(scores, [-1]))


def _record_language_model(
    config: Mapping[str, Any], weights: Weights, precision: Precision, target: Target
) -> tuple[Layers, ir.Value]:
    """Record the graph from its inputs to the pooled hidden states `(sequences, hidden size)` float32."""
    _check_config(config)
    language = config["llm_config"]
    op = GraphBuilder()
    layers = bind_layers(op, weights, precision, target)
    input_ids = op.input("input_ids", ir.DataType.INT64, ["tokens"])
    image_embeds = op.input("image_embeds", ir.DataType.FLOAT, ["image_values"])
    sequence_lengths = op.input("sequence_lengths", ir.DataType.INT32, ["sequences"])
    image_rows = op.input("image_rows", ir.DataType.INT32, ["sequences"])
    decoder = Decoder(layers, language, prefix="language_model.")
    lengths = op.Cast(sequence_lengths, to=ir.DataType.INT64)
    sequences = decoder.cut(lengths, op.Shape(input_ids), LayerKind(language))
    with op.scope("embeddings"):
        is_image = op.Equal(input_ids, config["img_context_token_id"])
        images = op.Gather(
            op.Reshape(image_embeds, [-1, language["hidden_size"]]),
            _image_row(op, is_image, image_rows, sequences.packing),
        )
        hidden = op.Where(op.Unsqueeze(is_image, [1]), images, decoder.embed(input_ids))
    hidden = decoder.record(hidden, [sequences] * language["num_hidden_layers"])
    with op.scope("pooling"):
        return layers, sequences.pool(hidden, POOLINGS[config["pooling"]])


def image_token_side(config: Mapping[str, Any]) -> int:
    """Return the number of patches along the side of the square that becomes one image token."""
    return round(1 / float(config["downsample_ratio"]))


def image_tokens_per_tile(config: Mapping[str, Any]) -> int:
    """Return the number of image tokens of one tile."""
    return (grid_side(config["vision_config"]) // image_token_side(config)) ** 2


def _image_row(op: GraphBuilder, is_image: ir.Value, image_rows: ir.Value, packing: Packing) -> ir.Value:
    """Return the row of `image_embeds` of each image token, and any valid row for other tokens: `(tokens,)` int64.

    The j-th image token of a sequence takes the j-th of the sequence's rows, but none beyond the last: a sequence with
    too many image tokens affects only itself.
    """
    image_tokens_before = op.CumSum(op.Cast(is_image, to=ir.DataType.INT64), 0, exclusive=1)
    first_token = op.Gather(packing.starts, packing.sequence)
    rank = op.Sub(image_tokens_before, op.Gather(image_tokens_before, first_token))
    rows = op.Cast(image_rows, to=ir.DataType.INT64)
    last_rank = op.Gather(op.Sub(rows, 1), packing.sequence)
    first_row = op.Gather(op.CumSum(rows, 0, exclusive=1), packing.sequence)
    return op.Where(is_image, op.Add(first_row, op.Min(rank, last_rank)), 0)


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse configs for which the graphs would silently compute something else."""
    vision, language = config["vision_config"], config["llm_config"]
    required = [
        ("pooling", config["pooling"], tuple(POOLINGS)),
        ("select_layer", config.get("select_layer", -1), (-1,)),
        ("pre_feature_reduction", config.get("pre_feature_reduction", False), (False,)),
        ("vision_config.model_type", vision["model_type"], ("siglip_vision_model",)),
        ("llm_config.model_type", language["model_type"], ("llama_bidirec", "llama")),
        ("llm_config.hidden_act", language["hidden_act"], ("silu",)),
        ("patches left over by downsample_ratio", grid_side(vision) % image_token_side(config), (0,)),
    ]
    for name, value, supported in required:
        if value not in supported:
            raise ValueError(f"{name} {value!r} is not supported (supported: {', '.join(map(repr, supported))})")
