"""Llama Nemotron VL against transformers' SigLIP and Llama, put together as the model cards say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn
from transformers import LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel
from transformers.modeling_utils import no_init_weights

from export.architectures import GraphFiles
from export.checkpoint import Checkpoint
from export.graphs.nemotron_vl import image_token_side
from export.graphs.weights import UnprefixedWeights, Weights
from export.names import HEADS, VISION_ENCODER
from export.pairs import SAMPLE_QUERIES, encode_pair, encode_sample_pairs
from export.sample_texts import PAIRS, SAMPLE_TEXTS
from export.spec import ImageSpec, ModelSpec, Target
from export.tokenizer import load_tokenizer
from export.validation import Agreement, RunGraph, ScoreAgreement, compare_embeddings, pack, run_graph
from export.validation.scores import compare_scores

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_PAGES_SEED = 20240229


@dataclass(frozen=True)
class SampleItem:
    """One sequence to embed, or to score.

    Attributes:
        input_ids: Token ids, image tokens included.
        patches: Pixels of the tiles as the preprocessing step sends them, `(image tokens, bytes of a row)` uint8; None
            for a text.
    """

    input_ids: Sequence[int]
    patches: NDArray[np.uint8] | None = None


def compare_with_transformers(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    image: ImageSpec,
    tokenizer: bytes,
    files: GraphFiles,
    target: Target,
    texts: Sequence[str],
) -> Agreement | ScoreAgreement:
    """Embed texts and pages, or score them for queries, with the written graphs and with transformers.

    The graphs get one packed batch, transformers one item at a time.
    """
    config = checkpoint.config
    if spec.rank:
        pairs, weights = _make_pairs(config, spec, image, tokenizer), UnprefixedWeights(checkpoint.weights, "model.")
        return compare_scores(run_graphs(files, target, pairs, spec), score_with_transformers(config, weights, pairs))
    items = make_items(config, spec, image, tokenizer, texts)
    found = run_graphs(files, target, items, spec)
    return compare_embeddings(found, embed_with_transformers(config, checkpoint.weights, items))


def _make_pairs(config: Mapping[str, Any], spec: ModelSpec, image: ImageSpec, tokenizer: bytes) -> list[SampleItem]:
    """Return queries with texts, with a page alone, and with two tiles and a text."""
    items = [SampleItem(pair.input_ids) for pair in encode_sample_pairs(tokenizer, spec)]
    loaded = load_tokenizer(tokenizer)
    loaded.encode_special_tokens = True
    for rows, text in _make_pages(config, image, SAMPLE_TEXTS[1], _PAGES_SEED):
        tiles = len(rows) // image.tokens_per_tile
        items.append(SampleItem(encode_pair(loaded, spec, SAMPLE_QUERIES[0], text, tiles).input_ids, rows))
    return items


def make_items(
    config: Mapping[str, Any],
    spec: ModelSpec,
    image: ImageSpec,
    tokenizer: bytes,
    texts: Sequence[str],
    seed: int = _PAGES_SEED,
) -> list[SampleItem]:
    """Return texts as passages and the first as a query, a page alone, and two tiles with a text."""
    loaded = load_tokenizer(tokenizer)
    loaded.encode_special_tokens = True
    prompts = [spec.passage_prefix + text for text in texts] + [spec.query_prefix + texts[0]]
    items = [SampleItem(encoding.ids[: spec.max_tokens]) for encoding in loaded.encode_batch(prompts)]
    head = loaded.encode(spec.passage_prefix + image.prefix).ids
    for rows, text in _make_pages(config, image, texts[1], seed):
        tail = loaded.encode(image.suffix + text, add_special_tokens=False).ids
        items.append(SampleItem([*head, *[image.token_id] * len(rows), *tail], rows))
    return items


def _make_pages(
    config: Mapping[str, Any], image: ImageSpec, text: str, seed: int
) -> list[tuple[NDArray[np.uint8], str]]:
    """Return the rows of a page of one tile, without a text, and of one of two tiles, with the text."""
    tiles = paint_pages(3, image.tile_size, seed)
    patches = _cut_patches(tiles, config["vision_config"]["patch_size"], image_token_side(config))
    return [(patches[: image.tokens_per_tile], ""), (patches[image.tokens_per_tile :], text)]


def paint_pages(count: int, side: int, seed: int = _PAGES_SEED) -> NDArray[np.uint8]:
    """Return pages with lines of text beside a photograph of soft clouds, `(count, side, side, 3)`.

    They are the same in every run with one seed.
    """
    random = np.random.default_rng(seed)
    pages = []
    for number in range(count):
        page = Image.new("RGB", (side, side), "white")
        page.paste(Image.fromarray(_paint_clouds(random, side // 2)), (side // 2, side // 8 * (number + 1)))
        draw = ImageDraw.Draw(page)
        draw.text((side // 16, side // 32), SAMPLE_TEXTS[number], "navy", font_size=side / 20)
        for line, text in enumerate(random.permutation(PAIRS)[:, 1]):
            draw.text(
                (side // 16, side // 8 + line * side // 36),
                text[: random.integers(8, 60)],
                "black",
                font_size=side / 48,
            )
        pages.append(np.asarray(page))
    return np.stack(pages)


def _paint_clouds(random: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Return clouds under a fine grain, `(side, side, 3)`."""
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
    clouds = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return np.clip(clouds + random.normal(0, 8, clouds.shape), 0, 255).astype(np.uint8)


def _cut_patches(tiles: NDArray[np.uint8], patch: int, block: int) -> NDArray[np.uint8]:
    """Cut tiles `(tiles, side, side, 3)` into the rows of `patches`, one for each image token.

    A row holds a square of `block²` patches one after the other, each flattened row, column, channel.
    """
    count, side = tiles.shape[:2]
    blocks = side // patch // block
    grid = tiles.reshape(count, blocks, block, patch, blocks, block, patch, 3)
    return grid.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(count * blocks * blocks, block * block * patch * patch * 3)


def run_graphs(
    files: GraphFiles, target: Target, items: Sequence[SampleItem], spec: ModelSpec, run: RunGraph = run_graph
) -> NDArray[np.float32]:
    """Run both graphs as the ensembles do; a text brings one row of `image_embeds`, which is never read."""
    patches = np.concatenate([item.patches for item in items if item.patches is not None])
    rows = run(files[VISION_ENCODER], target, "image_embeds", {"patches": patches.ravel()})
    image_rows = [1 if item.patches is None else len(item.patches) for item in items]
    image_embeds = np.full((sum(image_rows), rows.shape[1]), np.nan, np.float32)
    image_embeds[np.repeat([item.patches is not None for item in items], image_rows)] = rows
    inputs = pack([item.input_ids for item in items])
    inputs |= {"image_embeds": image_embeds.ravel(), "image_rows": np.asarray(image_rows, np.int32)}
    return run(files[HEADS[spec.task]], target, "scores" if spec.rank else "embeddings", inputs)


def embed_with_transformers(
    config: Mapping[str, Any], weights: Weights, items: Sequence[SampleItem]
) -> NDArray[np.float32]:
    """Embed items one at a time in float32, with one of the two towers in memory at a time.

    Args:
        config: The checkpoint's `config.json`.
        weights: Tensors of the checkpoint.
        items: Items to embed.

    Returns:
        Embeddings `(items, hidden size)` of length 1.
    """
    with torch.inference_mode():
        embeddings: NDArray[np.float32] = nn.functional.normalize(_pool(config, weights, items)).numpy()
    return embeddings


def score_with_transformers(
    config: Mapping[str, Any], weights: Weights, items: Sequence[SampleItem]
) -> NDArray[np.float32]:
    """Score pairs one at a time in float32, with one of the two towers in memory at a time.

    Args:
        config: The checkpoint's `config.json`.
        weights: Tensors of the checkpoint, named as those of the embedding model.
        items: Pairs to score.

    Returns:
        Scores `(items,)`, logits.
    """
    with torch.inference_mode():
        score = torch.from_numpy(weights.read("score.weight")[0])
        logits = _pool(config, weights, items) @ score / config.get("temperature", 1.0)
    scores: NDArray[np.float32] = logits.numpy()
    return scores


def _pool(config: Mapping[str, Any], weights: Weights, items: Sequence[SampleItem]) -> torch.Tensor:
    """Return the mean of the last hidden states of each item, `(items, hidden size)`."""
    image_embeds = _encode_images(config, weights, items)
    language_model = load_language_model(config["llm_config"], weights)
    return torch.stack(
        [_encode(language_model, config, item.input_ids, rows) for item, rows in zip(items, image_embeds, strict=True)]
    )


def _encode_images(
    config: Mapping[str, Any], weights: Weights, items: Iterable[SampleItem]
) -> list[torch.Tensor | None]:
    """Return the vectors of each item's image tokens, `(image tokens, hidden size)`, or None for a text."""
    vision_model = load_vision_model(config["vision_config"], weights)
    projector = load_projector(weights)
    block = round(1 / config["downsample_ratio"])
    image_embeds: list[torch.Tensor | None] = []
    for item in items:
        if item.patches is None:
            image_embeds.append(None)
            continue
        tiles = assemble_tiles(torch.from_numpy(item.patches), config["vision_config"], block)
        vectors = [vision_model(pixel_values=tile[None]).last_hidden_state for tile in tiles]
        image_embeds.append(projector(shuffle_pixels(torch.cat(vectors), block)))
    return image_embeds


def assemble_tiles(patches: torch.Tensor, vision: Mapping[str, Any], block: int) -> torch.Tensor:
    """Put tiles together again.

    Args:
        patches: Pixels as `SampleItem` has them, uint8.
        vision: The `vision_config` of the checkpoint.
        block: Patches along the side of a block.

    Returns:
        Float32 tiles `(tiles, channels, height, width)` from -1 to 1.
    """
    patch, channels = vision["patch_size"], vision["num_channels"]
    blocks = vision["image_size"] // patch // block
    grid = patches.float().reshape(-1, blocks, blocks, block, block, patch, patch, channels)
    tiles = grid.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, channels, vision["image_size"], vision["image_size"])
    return (tiles / 255 - 0.5) / 0.5


def shuffle_pixels(vectors: torch.Tensor, block: int) -> torch.Tensor:
    """Put the patches of a block side by side.

    Args:
        vectors: Vectors `(tiles, patches, width)` of patches, row by row.
        block: Patches along the side of a block.

    Returns:
        Vectors `(image tokens, block² * width)`.
    """
    tiles, patches, width = vectors.shape
    blocks = round(patches**0.5) // block
    grid = vectors.reshape(tiles, blocks, block, blocks, block, width).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(tiles * blocks * blocks, block * block * width)


def _encode(
    language_model: LlamaModel, config: Mapping[str, Any], input_ids: Sequence[int], image_rows: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean of the last hidden states, `(hidden size,)`."""
    ids = torch.tensor(input_ids)
    embedded = language_model.embed_tokens(ids)
    if image_rows is not None:
        embedded[ids == config["img_context_token_id"]] = image_rows
    bidirectional_mask = torch.zeros(1, 1, len(ids), len(ids))  # without a mask, Llama would make a causal one
    hidden = language_model(inputs_embeds=embedded[None], attention_mask=bidirectional_mask, use_cache=False)
    mean: torch.Tensor = hidden.last_hidden_state[0].mean(dim=0)
    return mean


def load_vision_model(vision: Mapping[str, Any], weights: Weights) -> SiglipVisionModel:
    """Load SigLIP's vision tower in float32, without its pooling head."""
    config = SiglipVisionConfig(**{**vision, "vision_use_head": False}, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    older = any(name.startswith("vision_model.vision_model.") for name in weights.names)
    with no_init_weights():
        model = SiglipVisionModel(config)
    return _fill(model, weights, "vision_model." if older else "")


def load_projector(weights: Weights) -> nn.Module:
    """Load the layers from shuffled patches to image tokens, in float32."""
    outputs, inputs = weights.shape("mlp1.1.weight")
    layers = nn.LayerNorm(inputs), nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs)
    return _fill(nn.Sequential(*layers), weights, "mlp1.")


def load_language_model(language: Mapping[str, Any], weights: Weights) -> LlamaModel:
    """Load Llama in float32 from a config that may be newer than transformers 4, with rope parameters in one place."""
    plain = {name: value for name, value in language.items() if name not in ("rope_parameters", "model_type")}
    if rope := language.get("rope_parameters"):
        plain["rope_theta"] = rope["rope_theta"]
        plain["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    with no_init_weights():
        model = LlamaModel(LlamaConfig(**plain, attn_implementation="sdpa"))  # type: ignore[no-untyped-call]
    return _fill(model, weights, "language_model.")


def _fill(module: ModuleT, weights: Weights, prefix: str) -> ModuleT:
    """Copy every parameter from the checkpoint, one at a time."""
    for name, parameter in module.named_parameters():
        parameter.copy_(torch.from_numpy(weights.read(prefix + name)))
    return module.eval()
