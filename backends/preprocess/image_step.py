"""The image ensemble's first step: pictures, with or without text beside them, to patches and packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from preprocess.decode_pool import DecodePool
from preprocess.errors import ItemError
from preprocess.images import ImageError, TiledImage
from preprocess.settings import ImageSettings, TextSettings
from preprocess.step import RequestError, Tensors, decode_text, read_truncate, sequence_tensors
from preprocess.tokenization import ImagePrompter, TextTokenizer, Truncate

DECODE_TIME_LIMIT_S = 20.0
DECODE_MEMORY_LIMIT_BYTES = 3 * 1024**3  # address space: the largest picture allowed takes 400 MB a copy


@dataclass(frozen=True)
class ImageItem:
    """An encoded picture and the text beside it, or what is wrong with the text."""

    image: bytes
    text: str | ItemError


class ImageStep:
    """Decodes and tiles the pictures of all requests of a batch side by side."""

    def __init__(self, version_dir: Path, text: TextSettings, image: ImageSettings) -> None:
        """Load the tokenizer that stands in `version_dir` and start the decoders."""
        self.prompter = ImagePrompter(TextTokenizer(version_dir / "tokenizer.json", text), image)
        self.rows_per_tile = image.tiling.rows_per_tile
        self.pool = DecodePool(image.workers, DECODE_TIME_LIMIT_S, DECODE_MEMORY_LIMIT_BYTES, image.tiling)

    def process(self, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
        """Answer every request of a batch with patches and packed sequences, or say why not."""
        read = [read_items(request) for request in requests]
        items = [item for request in read if isinstance(request, list) for item in request]
        pictures = iter(self.pool.preprocess([item.image for item in items]))
        return [
            items
            if isinstance(items, RequestError)
            else self.pack(items, list(islice(pictures, len(items))), read_truncate(request))
            for items, request in zip(read, requests, strict=True)
        ]

    def pack(
        self, items: Sequence[ImageItem], tiled: Sequence[TiledImage | ImageError], truncate: Truncate
    ) -> Tensors | RequestError:
        """Make one request's tensors; an item that failed has neither patches nor tokens."""
        encoded = self.encode(items, tiled, truncate)
        kept = [
            picture if isinstance(picture, TiledImage) and isinstance(sequence, list) else None
            for picture, sequence in zip(tiled, encoded, strict=True)
        ]
        try:
            tensors = sequence_tensors(encoded)
        except RequestError as error:
            return error
        tiles = np.array([picture.tiles if picture else 0 for picture in kept], dtype=np.int32)
        return tensors | {
            "patches": np.concatenate([picture.patches for picture in kept if picture]),
            "image_rows": tiles * self.rows_per_tile,
            "image_token_counts": tiles * self.rows_per_tile,
            "tile_counts": tiles,
        }

    def encode(
        self, items: Sequence[ImageItem], tiled: Sequence[TiledImage | ImageError], truncate: Truncate
    ) -> list[list[int] | ItemError]:
        """Tokenise the prompts of the items that are whole; pass on what is wrong with the others."""
        failed: list[ItemError | None] = [
            picture if isinstance(picture, ImageError) else item.text if isinstance(item.text, ItemError) else None
            for item, picture in zip(items, tiled, strict=True)
        ]
        whole = [
            (item.text, picture.tiles * self.rows_per_tile)
            for item, picture in zip(items, tiled, strict=True)
            if isinstance(picture, TiledImage) and isinstance(item.text, str)
        ]
        prompts = iter(self.prompter.encode([text for text, _ in whole], [count for _, count in whole], truncate))
        return [error or next(prompts) for error in failed]

    def close(self) -> None:
        """Stop the decoders."""
        self.pool.close()


def read_items(request: Tensors) -> list[ImageItem] | RequestError:
    """Read a request's pictures and texts."""
    images = request["image"]
    texts = request.get("text", np.full(len(images), b"", dtype=np.object_))
    if len(texts) != len(images):
        return RequestError("parameter_invalid: text must have as many entries as image, or be left out")
    try:
        read_truncate(request)
    except RequestError as error:
        return error
    return [ImageItem(image, read_text(data)) for image, data in zip(images, texts, strict=True)]


def read_text(data: bytes) -> str | ItemError:
    """Decode a text; one that is not UTF-8 fails alone."""
    try:
        return decode_text(data)
    except ItemError as error:
        return error
