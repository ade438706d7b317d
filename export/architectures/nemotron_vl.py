"""Llama Nemotron Embed VL: texts, images and both together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.nemotron_vl import (
    POOLINGS,
    build_embedder,
    build_vision_encoder,
    image_token_side,
    image_tokens_per_tile,
)
from export.names import EMBEDDER, VISION_ENCODER
from export.onnx_files import open_graph
from export.plan import GraphFiles, Plan
from export.reference.item import ReferenceItem
from export.sample_images import cut_patches, paint_tiles
from export.sample_texts import SAMPLE_TEXTS
from export.spec import ImageSpec, ModelSpec, Precision
from export.tokenizer import prepare_tokenizer
from export.triton.tensors import PATCH_BYTES
from export.validation import Agreement, compare_embeddings

# Around the image tokens of a prompt; ordinary text to the tokenizer.
IMAGE_PREFIX, IMAGE_SUFFIX = "<img>", "</img> "


def plan(checkpoint: Checkpoint, precision: Precision) -> Plan:
    """Return the plan of both graphs: the vision encoder and the embedder of text and image tokens.

    Raises:
        CheckpointError: a file is missing or asks for what the graphs cannot do.
        KeyError: `config.json` lacks a number.
    """
    config, weights = checkpoint.config, checkpoint.weights
    spec = _spec(checkpoint)
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, image_token_id=config["img_context_token_id"])
    graphs = {
        VISION_ENCODER: partial(build_vision_encoder, config, weights, precision),
        EMBEDDER: partial(build_embedder, config, weights, precision),
    }
    return Plan(spec, tokenizer, graphs, partial(_compare, checkpoint, spec, tokenizer))


def _spec(checkpoint: Checkpoint) -> ModelSpec:
    config = {**checkpoint.config, **(checkpoint.json("processor_config.json") or {})}
    if config["pooling"] not in POOLINGS:
        raise CheckpointError(f"pooling {config['pooling']!r} is not supported; known are {', '.join(POOLINGS)}")
    width = config["llm_config"]["hidden_size"]
    return ModelSpec(
        architecture=config["model_type"],
        dimensions=width,
        vocab_size=checkpoint.weights.shape("language_model.embed_tokens.weight")[0],
        # `q_max_length` is what training cut queries to; the model takes as long ones as passages.
        max_query_tokens=config["p_max_length"],
        max_passage_tokens=config["p_max_length"],
        pooling=POOLINGS[config["pooling"]],
        query_prefix=_with_space(config["query_prefix"]),
        passage_prefix=_with_space(config["passage_prefix"]),
        image_embeds_dim=width,
        image=_image_spec(config),
    )


def _image_spec(config: Mapping[str, Any]) -> ImageSpec:
    vision = config["vision_config"]
    tokens_per_tile = image_tokens_per_tile(config)
    bytes_per_token = vision["image_size"] ** 2 * vision["num_channels"] // tokens_per_tile
    if bytes_per_token != PATCH_BYTES:
        raise CheckpointError(
            f"an image token sees {bytes_per_token} bytes of pixels; only {PATCH_BYTES} are supported"
        )
    if config["force_image_size"] != vision["image_size"]:
        raise CheckpointError(
            f"tiles of {config['force_image_size']} pixels do not fit a vision tower for {vision['image_size']}"
        )
    return ImageSpec(
        token_id=config["img_context_token_id"],
        prefix=IMAGE_PREFIX,
        suffix=IMAGE_SUFFIX,
        tile_size=config["force_image_size"],
        max_tiles=config["max_input_tiles"] if config["dynamic_image_size"] else 1,
        use_thumbnail=config["use_thumbnail"],
        tokens_per_tile=tokens_per_tile,
    )


def _with_space(prefix: str) -> str:
    """Return the prefix with the space that stands between it and the text."""
    return f"{prefix} " if prefix and not prefix[-1].isspace() else prefix


def _compare(checkpoint: Checkpoint, spec: ModelSpec, tokenizer: bytes, files: GraphFiles) -> Agreement:
    """Embed texts and pictures by the written graphs, in one packed batch, and by transformers, one after another."""
    from export.reference.nemotron_vl import reference_embeddings

    items = _sample_items(checkpoint.config, spec, tokenizer)
    found = _run(files, items, spec.dimensions)
    return compare_embeddings(found, reference_embeddings(checkpoint.config, checkpoint.weights, items))


def _sample_items(config: Mapping[str, Any], spec: ModelSpec, tokenizer: bytes) -> list[ReferenceItem]:
    """Return texts as passages and queries, a picture alone, and two tiles with a text."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer.decode())
    loaded.encode_special_tokens = True
    prompts = [spec.passage_prefix + text for text in SAMPLE_TEXTS] + [spec.query_prefix + SAMPLE_TEXTS[0]]
    items = [ReferenceItem(encoding.ids[: spec.max_tokens]) for encoding in loaded.encode_batch(prompts)]
    if image := spec.image:
        side, block = image.tile_size, image_token_side(config)
        patches = cut_patches(paint_tiles(3, side), config["vision_config"]["patch_size"], block)
        head = loaded.encode(spec.passage_prefix + image.prefix).ids
        for rows, text in ((patches[: image.tokens_per_tile], ""), (patches[image.tokens_per_tile :], SAMPLE_TEXTS[1])):
            tail = loaded.encode(image.suffix + text, add_special_tokens=False).ids
            items.append(ReferenceItem([*head, *[image.token_id] * len(rows), *tail], rows))
    return items


def _run(files: GraphFiles, items: list[ReferenceItem], width: int) -> NDArray[np.float32]:
    """Run both graphs as the ensembles do; a text brings one row of `image_embeds` that is never read."""
    patches = np.concatenate([item.patches for item in items if item.patches is not None])
    rows: NDArray[np.float32] = open_graph(files[VISION_ENCODER]).run(["image_embeds"], {"patches": patches.ravel()})[0]
    image_rows = [1 if item.patches is None else len(item.patches) for item in items]
    image_embeds = np.full((sum(image_rows), width), np.nan, np.float32)
    image_embeds[np.repeat([item.patches is not None for item in items], image_rows)] = rows
    inputs = {
        "input_ids": np.concatenate([np.asarray(item.input_ids, np.int64) for item in items]),
        "image_embeds": image_embeds.ravel(),
        "sequence_lengths": np.asarray([len(item.input_ids) for item in items], np.int32),
        "image_rows": np.asarray(image_rows, np.int32),
    }
    embeddings: NDArray[np.float32] = open_graph(files[EMBEDDER]).run(["embeddings"], inputs)[0]
    return embeddings
