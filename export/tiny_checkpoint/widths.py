"""The numbers in which checkpoints of this kind differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Widths:
    """Widths and depths; with the defaults a tile takes some milliseconds.

    Raises:
        ValueError: If heads do not divide what they must.
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
        """Refuse what no model can be built from."""
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
