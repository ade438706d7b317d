"""Widths of a checkpoint, and the names, shapes and random content of its tensors."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NamedShape = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Widths:
    """Widths and depths of the two towers; with the defaults, a tile takes a few milliseconds.

    Raises:
        ValueError: A width is not positive, or not a multiple of its heads.
    """

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 256
    vocab_size: int = 2048
    vision_hidden_size: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    vision_intermediate_size: int = 128

    def __post_init__(self) -> None:
        """Refuse widths that no model can be built from."""
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1")
        for whole, part in (("hidden_size", "heads"), ("heads", "kv_heads"), ("vision_hidden_size", "vision_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole} must be a multiple of {part}")
        if self.head_size % 2:
            raise ValueError("hidden_size / heads must be even: rotary positions turn pairs")

    @property
    def head_size(self) -> int:
        """Components of one head of the language model."""
        return self.hidden_size // self.heads


FULL_SIZE = Widths(
    hidden_size=2048,
    layers=16,
    heads=32,
    kv_heads=8,
    intermediate_size=8192,
    vocab_size=128259,
    vision_hidden_size=1152,
    vision_layers=27,
    vision_heads=16,
    vision_intermediate_size=4304,
)


def draw_tensor(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw a tensor as training might leave it: layers preserve the scale of their inputs.

    The content depends only on the seed and the name.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    tensor = random.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        tensor *= 0.1
        return tensor + np.float32(1) if name.endswith(".weight") else tensor
    if name.endswith("embed_tokens.weight"):
        return tensor
    tensor *= np.float32(1 / math.sqrt(math.prod(shape[1:])))
    return tensor


def reranker_shapes(widths: Widths) -> Iterator[NamedShape]:
    """Yield the name and shape of every tensor of a reranker: those of an embedder below `model.`, and a score."""
    for name, shape in tensor_shapes(widths):
        yield f"model.{name}", shape
    yield "score.weight", (1, widths.hidden_size)


def tensor_shapes(widths: Widths) -> Iterator[NamedShape]:
    """Yield the name and shape of every tensor of an embedder, in the order of the computation."""
    yield from _vision_shapes(widths.vision_hidden_size, widths.vision_intermediate_size, widths.vision_layers)
    shuffled = widths.vision_hidden_size * 4
    yield from _layer("mlp1.0", shuffled)
    yield from _layer("mlp1.1", widths.hidden_size, shuffled)
    yield from _layer("mlp1.3", widths.hidden_size, widths.hidden_size)
    yield from _language_shapes(widths)


def _layer(name: str, *shape: int) -> Iterator[NamedShape]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _vision_shapes(width: int, inner: int, layers: int) -> Iterator[NamedShape]:
    yield from _layer("vision_model.embeddings.patch_embedding", width, 3, 16, 16)
    yield "vision_model.embeddings.position_embedding.weight", (1024, width)
    for index in range(layers):
        name = f"vision_model.encoder.layers.{index}"
        yield from _layer(f"{name}.layer_norm1", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{name}.self_attn.{projection}", width, width)
        yield from _layer(f"{name}.layer_norm2", width)
        yield from _layer(f"{name}.mlp.fc1", inner, width)
        yield from _layer(f"{name}.mlp.fc2", width, inner)
    yield from _layer("vision_model.post_layernorm", width)


def _language_shapes(widths: Widths) -> Iterator[NamedShape]:
    width, inner = widths.hidden_size, widths.intermediate_size
    key_width = widths.head_size * widths.kv_heads
    yield "language_model.embed_tokens.weight", (widths.vocab_size, width)
    for index in range(widths.layers):
        name = f"language_model.layers.{index}"
        yield f"{name}.input_layernorm.weight", (width,)
        yield f"{name}.self_attn.q_proj.weight", (width, width)
        yield f"{name}.self_attn.k_proj.weight", (key_width, width)
        yield f"{name}.self_attn.v_proj.weight", (key_width, width)
        yield f"{name}.self_attn.o_proj.weight", (width, width)
        yield f"{name}.post_attention_layernorm.weight", (width,)
        yield f"{name}.mlp.gate_proj.weight", (inner, width)
        yield f"{name}.mlp.up_proj.weight", (inner, width)
        yield f"{name}.mlp.down_proj.weight", (width, inner)
    yield "language_model.norm.weight", (width,)
