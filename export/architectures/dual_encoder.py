"""The plan that all dual encoders share: a tower for texts and one for images, into one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from export.architectures import GraphFiles, Plan
from export.architectures.config import (
    require_flag,
    require_multiple,
    require_number,
    require_objects,
    require_sizes,
)
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.image_tower import RecordTower, build_image_tower
from export.graphs.text_embedder import DenseLayer, RecordEncoder, SentenceHead, build_text_embedder
from export.graphs.towers import PixelScale
from export.names import EMBEDDER, VISION_ENCODER
from export.spec import ImageTowerSpec, ModelSpec, Precision, Resample, Target
from export.tokenizer import check_expansion, check_prefixes, check_token_ids
from export.validation import Agreement

PREPROCESSOR = "preprocessor_config.json"
_PROCESSORS = ("CLIPFeatureExtractor", "CLIPImageProcessor", "SiglipImageProcessor")
_RESAMPLES: Mapping[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by Pillow's numbers


@dataclass(frozen=True)
class DualEncoder:
    """The two towers of a checkpoint.

    Attributes:
        text: Config of the text tower, complete.
        vision: Config of the image tower, complete.
        record_text: Records the text tower, whose last token becomes the vector.
        record_image: Records the image tower.
        text_projection: Linear layer that follows the text tower.
        tokenizer: Content of the `tokenizer.json` to serve.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    record_text: RecordEncoder
    record_image: RecordTower
    text_projection: str
    tokenizer: bytes


def read_tower_config(config: Mapping[str, Any], tower: str, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of a tower; published ones leave out what is transformers' default.

    Args:
        config: The checkpoint's `config.json`.
        tower: `text_config` or `vision_config`.
        defaults: Values that the config need not have.

    Raises:
        CheckpointError: A number is missing or out of range.
    """
    given = {name: config[name] for name in (tower, f"{tower}_dict") if config.get(name) is not None}
    require_objects(given, *given)
    complete = {**defaults, **given.get(tower, {})}
    if f"{tower}_dict" in given:  # of older configs of CLIP: it takes precedence, and so do the defaults beside it
        complete |= {**defaults, **given[f"{tower}_dict"]}
    require_sizes(complete, "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    require_multiple(complete, "hidden_size", "num_attention_heads")
    require_number(complete, "layer_norm_eps", 0, 1)
    if tower == "vision_config":
        require_sizes(complete, "image_size", "patch_size", "num_channels")
        if complete["num_channels"] != 3 or complete["patch_size"] > complete["image_size"]:
            raise CheckpointError("the image tower does not take RGB images of at least one patch")
    return complete


def plan_dual_encoder(checkpoint: Checkpoint, precision: Precision, target: Target, encoder: DualEncoder) -> Plan:
    """Return the plan of a dual encoder: two graphs, neither of which needs the other.

    Raises:
        CheckpointError: A file is missing or asks for something that is not supported.
    """
    weights, image = checkpoint.weights, read_image_tower(checkpoint, encoder.vision)
    rows = weights.shape("vision_model.embeddings.position_embedding.weight")[0]
    if rows not in (image.tokens_per_tile, image.tokens_per_tile + 1):  # the latter with the first row of CLIP
        patches = f"{image.image_size}x{image.image_size} pixels have {image.tokens_per_tile} patches"
        raise CheckpointError(f"images of {patches}, but the image tower has {rows} position embeddings")
    dimensions = weights.shape(f"{encoder.text_projection}.weight")[0]
    max_tokens = weights.shape("text_model.embeddings.position_embedding.weight")[0]
    head = SentenceHead("last", (DenseLayer(encoder.text_projection, dimensions),))
    spec = ModelSpec(
        architecture=checkpoint.config["model_type"],
        dimensions=dimensions,
        vocab_size=weights.shape("text_model.embeddings.token_embedding.weight")[0],
        max_query_tokens=max_tokens,
        max_passage_tokens=max_tokens,
        pooling=head.pooling,
        image=image,
    )
    check_token_ids(encoder.tokenizer, spec.vocab_size)
    check_expansion(encoder.tokenizer)
    check_prefixes(encoder.tokenizer, spec)
    scale = PixelScale(image.scale, image.mean, image.std)
    width, size = encoder.text["hidden_size"], image.patch_size
    graphs = {
        VISION_ENCODER: partial(
            build_image_tower, weights, encoder.record_image, size, scale, dimensions, precision, target
        ),
        EMBEDDER: partial(build_text_embedder, weights, encoder.record_text, width, head, precision, target),
    }
    return Plan(spec, encoder.tokenizer, graphs, partial(_compare, checkpoint, spec, image, encoder.tokenizer, target))


def _compare(
    checkpoint: Checkpoint, spec: ModelSpec, image: ImageTowerSpec, tokenizer: bytes, target: Target, files: GraphFiles
) -> Agreement:
    from export.validation.dual_encoder import compare_with_transformers  # PyTorch takes seconds to import

    return compare_with_transformers(checkpoint, spec, image, tokenizer, files, target)


def read_image_tower(checkpoint: Checkpoint, vision: Mapping[str, Any]) -> ImageTowerSpec:
    """Read how images are preprocessed.

    Args:
        checkpoint: The files.
        vision: Config of the image tower.

    Raises:
        CheckpointError: `preprocessor_config.json` is missing, or asks for something that is not supported.
    """
    config = {"do_center_crop": False, "rescale_factor": 1 / 255, **checkpoint.require_json(PREPROCESSOR)}
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or _PROCESSORS[0])
    if kind.removesuffix("Fast") not in _PROCESSORS:
        raise CheckpointError(f"{PREPROCESSOR} is of {kind:.40}; only {', '.join(_PROCESSORS)} are supported")
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(name) is False:
            raise CheckpointError(f"{PREPROCESSOR} has {name} false, which is not supported")
    require_flag(config, "do_center_crop")
    require_number(config, "rescale_factor", 0, 1)
    if config.get("resample") not in _RESAMPLES:
        allowed = ", ".join(f"{number} ({name})" for number, name in _RESAMPLES.items())
        raise CheckpointError(
            f"{PREPROCESSOR} has resample {config.get('resample')!r:.40}; only {allowed} are supported"
        )
    return ImageTowerSpec(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        shortest_edge=_read_shortest_edge(config, vision["image_size"]),
        resample=_RESAMPLES[config["resample"]],
        scale=config["rescale_factor"],
        mean=_read_channels(config, "image_mean"),
        std=_read_channels(config, "image_std"),
    )


def _read_shortest_edge(config: Mapping[str, Any], side: int) -> int | None:
    """Return the length to which the shorter side is resized, None if both become the side of the tower's input."""
    size, crop = config.get("size"), config.get("crop_size")
    square = {"height": side, "width": side}
    if size == square and not (config["do_center_crop"] and crop not in (side, square)):
        return None
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    if config["do_center_crop"] and crop in (side, square) and isinstance(edge, int) and side <= edge <= 4 * side:
        return edge
    raise CheckpointError(f"{PREPROCESSOR} does not make images of {side}x{side} pixels, the size of the image tower")


def _read_channels(config: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Return three numbers from 0 to 1, one for each channel."""
    values = config.get(name)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
        or (name == "image_std" and not all(values))
    ):
        raise CheckpointError(f"{PREPROCESSOR} has {name} {values!r:.40}, not three numbers from 0 to 1")
    return cast(tuple[float, float, float], tuple(map(float, values)))
