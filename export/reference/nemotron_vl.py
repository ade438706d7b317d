"""Llama Nemotron Embed VL by transformers' SigLIP and Llama, after the model card rather than after our graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel
from transformers.modeling_utils import no_init_weights

from export.graphs.weights import Weights
from export.reference.item import ReferenceItem

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def reference_embeddings(
    config: Mapping[str, Any], weights: Weights, items: Sequence[ReferenceItem]
) -> NDArray[np.float32]:
    """Embeds items one after the other in float32.

    Args:
        config: The checkpoint's config.json.
        weights: Its tensors; one of the two towers is in memory at a time.
        items: What to embed.

    Returns:
        `(items, hidden size)`, each of length 1.
    """
    with torch.inference_mode():
        image_embeds = _encode_images(config, weights, items)
        language_model = _load_language_model(config["llm_config"], weights)
        embeddings = [
            _embed(language_model, config, item.input_ids, rows) for item, rows in zip(items, image_embeds, strict=True)
        ]
    stacked: NDArray[np.float32] = torch.stack(embeddings).numpy()
    return stacked


def _encode_images(
    config: Mapping[str, Any], weights: Weights, items: Iterable[ReferenceItem]
) -> list[torch.Tensor | None]:
    """The vectors of each item's image tokens, `(image tokens, hidden size)`; None for a text."""
    vision_model = _load_vision_model(config["vision_config"], weights)
    projector = _load_projector(weights)
    block = round(1 / config["downsample_ratio"])
    image_embeds: list[torch.Tensor | None] = []
    for item in items:
        if item.patches is None:
            image_embeds.append(None)
            continue
        tiles = _assemble_tiles(item.patches, config["vision_config"], block)
        vectors = [vision_model(pixel_values=tile[None]).last_hidden_state for tile in tiles]
        image_embeds.append(projector(_shuffle_pixels(torch.cat(vectors), block)))
    return image_embeds


def _assemble_tiles(patches: NDArray[np.uint8], vision: Mapping[str, Any], block: int) -> torch.Tensor:
    """Rows of blocks of patches back to pictures, `(tiles, channels, height, width)` from -1 to 1."""
    patch, channels = vision["patch_size"], vision["num_channels"]
    blocks = vision["image_size"] // patch // block
    grid = torch.from_numpy(patches.astype(np.float32)).reshape(
        -1, blocks, blocks, block, block, patch, patch, channels
    )
    pictures = grid.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, channels, vision["image_size"], vision["image_size"])
    return (pictures / 255 - 0.5) / 0.5


def _shuffle_pixels(vectors: torch.Tensor, block: int) -> torch.Tensor:
    """`(tiles, patches, width)` row by row to `(image tokens, block² * width)`, the patches of a block side by side."""
    tiles, patches, width = vectors.shape
    blocks = round(patches**0.5) // block
    grid = vectors.reshape(tiles, blocks, block, blocks, block, width).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(tiles * blocks * blocks, block * block * width)


def _embed(
    language_model: LlamaModel, config: Mapping[str, Any], input_ids: Sequence[int], image_rows: torch.Tensor | None
) -> torch.Tensor:
    """Mean of the last hidden states, normalised: `(hidden size,)`."""
    ids = torch.tensor(input_ids)
    embedded = language_model.embed_tokens(ids)
    if image_rows is not None:
        embedded[ids == config["img_context_token_id"]] = image_rows
    everything_attends = torch.zeros(1, 1, len(ids), len(ids))  # a causal mask would be made where none is given
    hidden = language_model(inputs_embeds=embedded[None], attention_mask=everything_attends, use_cache=False)
    return nn.functional.normalize(hidden.last_hidden_state[0].mean(dim=0), dim=0)


def _load_vision_model(vision: Mapping[str, Any], weights: Weights) -> SiglipVisionModel:
    config = SiglipVisionConfig(**{**vision, "vision_use_head": False}, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    older = any(name.startswith("vision_model.vision_model.") for name in weights.names)
    with no_init_weights():
        model = SiglipVisionModel(config)
    return _fill(model, weights, "vision_model." if older else "")


def _load_projector(weights: Weights) -> nn.Module:
    outputs, inputs = weights.shape("mlp1.1.weight")
    layers = nn.LayerNorm(inputs), nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs)
    return _fill(nn.Sequential(*layers), weights, "mlp1.")


def _load_language_model(language: Mapping[str, Any], weights: Weights) -> LlamaModel:
    """Makes Llama of a config that may be newer than transformers 4, where rope parameters stand in two places."""
    plain = {name: value for name, value in language.items() if name not in ("rope_parameters", "model_type")}
    if rope := language.get("rope_parameters"):
        plain["rope_theta"] = rope["rope_theta"]
        plain["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    with no_init_weights():
        model = LlamaModel(LlamaConfig(**plain, attn_implementation="sdpa"))  # type: ignore[no-untyped-call]
    return _fill(model, weights, "language_model.")


def _fill(module: ModuleT, weights: Weights, prefix: str) -> ModuleT:
    """Copies every parameter from the checkpoint, one at a time."""
    for name, parameter in module.named_parameters():
        parameter.copy_(torch.from_numpy(weights.read(prefix + name)))
    return module.eval()
