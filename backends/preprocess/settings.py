"""How a model wants its texts and images preprocessed, read from the `parameters` of its config.pbtxt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from preprocess.items import ImageError

PIXELS_PER_BLOCK_SIDE = 32
"""An image token covers a square of 32x32 pixels: four 16x16 patches, merged by the pixel shuffle."""

VALUES_PER_ROW = PIXELS_PER_BLOCK_SIDE**2 * 3
"""Bytes in a row of `patches`."""

MIN_DECODE_WORKERS, MAX_DECODE_WORKERS = 2, 16
"""The default's bounds: one worker is kept free of slow images; 16 hand over more pages than the step passes on.

A page takes a decoder 65 ms of a core and the step's own process 8 ms (docs/performance.md).
"""


@dataclass(frozen=True)
class PairSettings:
    """How a reranker's tokenizer joins a query and a document.

    Attributes:
        head: Token ids before the query.
        middle: Token ids between query and document; none if both are one text with the model's prefixes.
        tail: Token ids after the document.
        has_token_types: Whether the graph is told which tokens are the document's.
    """

    head: list[int]
    middle: list[int]
    tail: list[int]
    has_token_types: bool

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> PairSettings:
        """Read the settings from a model configuration's parameters."""
        head, middle, tail = (json.loads(parameters[name]) for name in ("pair_head", "pair_middle", "pair_tail"))
        return cls(head, middle, tail, parameters["token_types"] == "true")  # noqa: S105 - tokens of text


@dataclass(frozen=True)
class TextSettings:
    """How text becomes token ids.

    Attributes:
        query_prefix: Prepended to a query, including its trailing space.
        passage_prefix: Prepended to a passage, including its trailing space.
        max_query_tokens: Maximum length of a query, including special and prefix tokens.
        max_passage_tokens: Maximum length of a passage, including special, prefix and image tokens.
        vocab_size: Rows of the token embedding table.
        image_token_id: Id of the token replaced by a row of `image_embeds`; None if the embedder takes no images.
        image_embeds_dim: Width of a row of `image_embeds`; 0 if the embedder takes no images.
        token_ids_round_trip: Whether the tokenizer gives the same token ids again for the text of its token ids.
        pair: How a reranker joins query and document, of which the prefixes are then parts; None for an embedder.
    """

    query_prefix: str
    passage_prefix: str
    max_query_tokens: int
    max_passage_tokens: int
    vocab_size: int
    image_token_id: int | None
    image_embeds_dim: int
    token_ids_round_trip: bool = True
    pair: PairSettings | None = None

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> TextSettings:
        """Read the settings from a model configuration's parameters."""
        image_token_id = parameters.get("image_token_id")
        return cls(
            query_prefix=parameters.get("query_prefix", ""),
            passage_prefix=parameters.get("passage_prefix", ""),
            max_query_tokens=int(parameters["max_query_tokens"]),
            max_passage_tokens=int(parameters["max_passage_tokens"]),
            vocab_size=int(parameters["vocab_size"]),
            image_token_id=None if image_token_id is None else int(image_token_id),
            image_embeds_dim=int(parameters.get("image_embeds_dim", "0")),
            token_ids_round_trip=parameters.get("token_ids_round_trip", "true") == "true",
            pair=PairSettings.read(parameters) if parameters.get("task") == "rank" else None,
        )


@dataclass(frozen=True)
class Tiling:
    """How a model wants its images cut into tiles.

    Attributes:
        tile_size: Width and height of a tile in pixels, a multiple of 32.
        max_tiles: Maximum number of tiles in a grid, not counting the thumbnail.
        use_thumbnail: Whether a grid of several tiles is followed by the whole image, scaled down to one tile.
    """

    tile_size: int = 512
    max_tiles: int = 6
    use_thumbnail: bool = True

    @property
    def values_per_row(self) -> int:
        """Bytes in a row of `patches`."""
        return VALUES_PER_ROW

    @property
    def rows_per_tile(self) -> int:
        """Rows of `patches`, and so image tokens, per tile."""
        return (self.tile_size // PIXELS_PER_BLOCK_SIDE) ** 2

    @property
    def max_rows(self) -> int:
        """Maximum number of rows of `patches` per image."""
        return self.rows_per_tile * (self.max_tiles + self.use_thumbnail)


@dataclass(frozen=True)
class Resizing:
    """How an image tower without a language model wants its images.

    Attributes:
        image_size: Width and height of its input, in pixels.
        patch_size: Width and height of a patch, in pixels.
        resample: Filter by which images are resized: `bilinear`, `bicubic` or `lanczos`.
        shortest_edge: Length that the shorter side is resized to, in pixels, before the middle is cut out; None if both
            sides are resized to `image_size`.
    """

    image_size: int
    patch_size: int
    resample: str
    shortest_edge: int | None = None

    @property
    def patches_per_side(self) -> int:
        """Whole patches side by side; the pixels beyond are left out."""
        return self.image_size // self.patch_size

    @property
    def values_per_row(self) -> int:
        """Bytes in a row of `patches`, which is one patch."""
        return self.patch_size**2 * 3

    @property
    def rows_per_tile(self) -> int:
        """Rows of `patches` per image."""
        return self.patches_per_side**2

    @property
    def max_rows(self) -> int:
        """Maximum number of rows of `patches` per image."""
        return self.rows_per_tile


@dataclass(frozen=True)
class ImageLimits:
    """Limits on an image, checked before it is decoded.

    Attributes:
        max_bytes: Maximum size of the encoded file, in bytes.
        max_long_side: Maximum of the larger of width and height, in pixels.
        max_short_side: Maximum of the smaller of width and height, in pixels.
    """

    max_bytes: int = 25 * 1024 * 1024
    max_long_side: int = 16384
    max_short_side: int = 8192

    def check_bytes(self, count: int) -> None:
        """Refuse an empty file and one that is too large.

        Raises:
            ImageError: `image_invalid` or `image_too_large`.
        """
        if count == 0:
            raise ImageError("image_invalid", "the image is empty")
        if count > self.max_bytes:
            raise ImageError("image_too_large", f"the image has {count} bytes; the limit is {self.max_bytes}")

    def check_size(self, width: int, height: int) -> None:
        """Refuse an image without pixels and one with too many.

        Raises:
            ImageError: `image_invalid` or `image_too_large`.
        """
        if width < 1 or height < 1:
            raise ImageError("image_invalid", "the image has no pixels")
        if max(width, height) > self.max_long_side or min(width, height) > self.max_short_side:
            message = (
                f"the image is {width} pixels wide and {height} high; "
                f"the limit is {self.max_long_side} on one side and {self.max_short_side} on the other"
            )
            raise ImageError("image_too_large", message)


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes tiles and takes its place in a prompt.

    Attributes:
        prefix: Text between the passage prefix and the image tokens; empty without a language model.
        suffix: Text between the image tokens and the item's text; empty without a language model.
        tiling: How images are cut into tiles, or resized for an image tower without a language model.
        limits: Limits on images.
        decode_workers: Number of processes that decode images; `count_decode_workers` by default.
    """

    prefix: str
    suffix: str
    tiling: Tiling | Resizing
    limits: ImageLimits
    decode_workers: int

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> ImageSettings:
        """Read the settings from a model configuration's parameters."""
        return cls(
            prefix=parameters.get("image_prefix", ""),
            suffix=parameters.get("image_suffix", ""),
            tiling=read_tiling(parameters),
            limits=ImageLimits(max_bytes=int(parameters.get("max_image_bytes", ImageLimits.max_bytes))),
            decode_workers=int(parameters.get("decode_workers") or count_decode_workers()),
        )


def read_tiling(parameters: Mapping[str, str]) -> Tiling | Resizing:
    """Read how images are cut into tiles or, for an image tower without a language model, resized."""
    if "image_size" not in parameters:
        return Tiling(
            tile_size=int(parameters["tile_size"]),
            max_tiles=int(parameters["max_tiles"]),
            use_thumbnail=parameters["use_thumbnail"] == "true",
        )
    shortest_edge = parameters.get("shortest_edge")
    return Resizing(
        image_size=int(parameters["image_size"]),
        patch_size=int(parameters["patch_size"]),
        resample=parameters["resample"],
        shortest_edge=None if shortest_edge is None else int(shortest_edge),
    )


def count_decode_workers() -> int:
    """Return half of the cores that this process may use, within bounds: the other steps need cores as well."""
    cores = len(os.sched_getaffinity(0))
    return min(max(MIN_DECODE_WORKERS, cores // 2), MAX_DECODE_WORKERS)
