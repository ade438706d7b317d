"""Llama Nemotron Embed VL and Rerank VL: texts, images, and images with text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from export.architectures import GraphFiles, Plan
from export.architectures.config import (
    require_decoder,
    require_flag,
    require_multiple,
    require_number,
    require_objects,
    require_sizes,
    require_text,
)
from export.architectures.reranker import PASSAGE, QUESTION, check_score, check_target
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.nemotron_vl import (
    POOLINGS,
    build_embedder,
    build_reranker,
    build_vision_encoder,
    image_tokens_per_tile,
)
from export.graphs.weights import UnprefixedWeights, Weights
from export.names import EMBEDDER, RERANKER, VISION_ENCODER
from export.pairs import check_pairs
from export.sample_texts import QUALITY_TEXTS, SAMPLE_TEXTS
from export.spec import IMAGE_TOKEN_BYTES, ImageSpec, ModelSpec, Precision, RankSpec, Target
from export.tokenizer import (
    check_expansion,
    check_prefixes,
    check_token_ids,
    load_tokenizer,
    prepare_tokenizer,
    read_special_tokens,
)
from export.validation import Agreement, RunGraph, ScoreAgreement

# Text around the image tokens of a prompt; the tokenizer has no special tokens for it.
IMAGE_PREFIX, IMAGE_SUFFIX = "<img>", "</img> "


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of two graphs: the vision encoder, and the embedder of text and image tokens.

    Raises:
        CheckpointError: A file is missing or asks for something that the graphs do not support.
        KeyError: `config.json` lacks a number.
    """
    config, weights = checkpoint.config, checkpoint.weights
    settings = {**config, **(checkpoint.json("processor_config.json") or {})}
    _check_sizes(settings)
    for name in ("query_prefix", "passage_prefix"):
        require_text(settings, name)
    image = _image_spec(settings)
    # Training cut queries to `q_max_length`; the model takes queries as long as passages.
    spec = replace(
        _spec(weights, settings, image, settings["p_max_length"]),
        query_prefix=_with_space(settings["query_prefix"]),
        passage_prefix=_with_space(settings["passage_prefix"]),
    )
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, image_token_id=image.token_id)
    check_token_ids(tokenizer, spec.vocab_size)
    check_expansion(tokenizer)
    check_prefixes(tokenizer, spec)
    graphs = {
        VISION_ENCODER: partial(build_vision_encoder, config, weights, precision, target),
        EMBEDDER: partial(build_embedder, config, weights, precision, target),
    }
    texts = SAMPLE_TEXTS if precision == "fp32" else QUALITY_TEXTS
    compare = partial(_compare, checkpoint, spec, image, tokenizer, target, texts)
    embed_samples = partial(_embed_samples, config, spec, image, tokenizer, target)
    return Plan(spec, tokenizer, graphs, compare, embed_samples=embed_samples)


def plan_reranker(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of two graphs: the vision encoder, and the reranker of text and image tokens.

    Raises:
        CheckpointError: A file is missing or asks for something that the graphs do not support.
        KeyError: `config.json` lacks a number.
    """
    check_target(target)
    config, weights = checkpoint.config, UnprefixedWeights(checkpoint.weights, "model.")
    settings = {**config, **(checkpoint.json("processor_config.json") or {})}
    _check_sizes(settings)
    check_score(weights, "score")
    require_number({"temperature": 1.0, **config}, "temperature", 0, 1e6)
    if settings.get("prompt_template", "v1") != "v1":
        raise CheckpointError(f"prompt_template {settings['prompt_template']!r:.40} is not supported; only 'v1' is")
    if settings.get("rerank_max_length") is not None:
        require_sizes(settings, "rerank_max_length")
    image = _image_spec(settings)
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, image_token_id=image.token_id)
    spec = replace(
        _spec(weights, settings, image, settings.get("rerank_max_length") or settings["p_max_length"]),
        dimensions=1,
        normalize=False,
        query_prefix=QUESTION,
        passage_prefix=PASSAGE,
        rank=RankSpec("identity", *read_special_tokens(load_tokenizer(tokenizer))),
    )
    check_token_ids(tokenizer, spec.vocab_size)
    check_expansion(tokenizer)
    check_pairs(tokenizer, spec)
    graphs = {
        VISION_ENCODER: partial(build_vision_encoder, config, weights, precision, target),
        RERANKER: partial(build_reranker, config, weights, precision, target),
    }
    return Plan(spec, tokenizer, graphs, partial(_compare, checkpoint, spec, image, tokenizer, target, SAMPLE_TEXTS))


def _check_sizes(settings: Mapping[str, Any]) -> None:
    require_objects(settings, "llm_config", "vision_config")
    language, vision = settings["llm_config"], settings["vision_config"]
    _check_preprocessing(settings)
    require_sizes(settings, "p_max_length", "max_input_tiles", "force_image_size")
    require_decoder(language)
    require_sizes(vision, "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    require_number(vision, "layer_norm_eps", 0, 1)
    require_sizes(vision, "image_size", "patch_size", "num_channels")
    require_multiple(vision, "hidden_size", "num_attention_heads")
    require_multiple(vision, "image_size", "patch_size")
    ratio = settings["downsample_ratio"]
    if not isinstance(ratio, int | float) or not 0 < ratio <= 1 or not image_tokens_per_tile(settings):
        raise CheckpointError(f"downsample_ratio is {ratio!r:.40}, which leaves no image tokens")


def _check_preprocessing(settings: Mapping[str, Any]) -> None:
    for name in ("use_thumbnail", "dynamic_image_size"):
        require_flag(settings, name)
    require_text(settings, "pooling")
    token_id = settings["img_context_token_id"]
    if not isinstance(token_id, int) or isinstance(token_id, bool):
        raise CheckpointError(f"the checkpoint's img_context_token_id is {token_id!r:.40}, not an image token's id")


def _compare(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    image: ImageSpec,
    tokenizer: bytes,
    target: Target,
    texts: Sequence[str],
    files: GraphFiles,
) -> Agreement | ScoreAgreement:
    from export.validation.nemotron_vl import compare_with_transformers  # PyTorch takes seconds to import

    return compare_with_transformers(checkpoint, spec, image, tokenizer, files, target, texts)


def _embed_samples(
    config: Mapping[str, Any],
    spec: ModelSpec,
    image: ImageSpec,
    tokenizer: bytes,
    target: Target,
    files: GraphFiles,
    run: RunGraph,
) -> None:
    from export.validation.nemotron_vl import make_items, run_graphs

    items = make_items(config, spec, image, tokenizer, SAMPLE_TEXTS, seed=0)
    run_graphs(files, target, items, spec, run)


def _spec(weights: Weights, settings: Mapping[str, Any], image: ImageSpec, max_tokens: int) -> ModelSpec:
    if settings["pooling"] not in POOLINGS:
        raise CheckpointError(f"pooling {settings['pooling']!r} is not supported (supported: {', '.join(POOLINGS)})")
    width = settings["llm_config"]["hidden_size"]
    return ModelSpec(
        architecture=settings["model_type"],
        dimensions=width,
        vocab_size=weights.shape("language_model.embed_tokens.weight")[0],
        max_query_tokens=max_tokens,
        max_passage_tokens=max_tokens,
        pooling=POOLINGS[settings["pooling"]],
        image_embeds_dim=width,
        image=image,
    )


def _image_spec(settings: Mapping[str, Any]) -> ImageSpec:
    vision = settings["vision_config"]
    tokens_per_tile = image_tokens_per_tile(settings)
    bytes_per_token = vision["image_size"] ** 2 * vision["num_channels"] // tokens_per_tile
    if bytes_per_token != IMAGE_TOKEN_BYTES:
        raise CheckpointError(
            f"an image token covers {bytes_per_token} bytes of pixels; only {IMAGE_TOKEN_BYTES} are supported"
        )
    if settings["force_image_size"] != vision["image_size"]:
        raise CheckpointError(
            f"tiles of {settings['force_image_size']} pixels do not fit a vision tower for {vision['image_size']}"
        )
    return ImageSpec(
        token_id=settings["img_context_token_id"],
        prefix=IMAGE_PREFIX,
        suffix=IMAGE_SUFFIX,
        tile_size=settings["force_image_size"],
        max_tiles=settings["max_input_tiles"] if settings["dynamic_image_size"] else 1,
        use_thumbnail=settings["use_thumbnail"],
        tokens_per_tile=tokens_per_tile,
    )


def _with_space(prefix: str) -> str:
    """Return a prefix with the space that separates it from the text."""
    return f"{prefix} " if prefix and not prefix[-1].isspace() else prefix
