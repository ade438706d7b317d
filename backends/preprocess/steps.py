"""The first steps of the ensembles: requests in, packed tensors or an error for each of them out."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preprocess.items import (
    EMPTY_SEQUENCE,
    ImageItem,
    ItemError,
    RequestError,
    Tensors,
    TextItem,
    TokenSequence,
    TokensItem,
    decode_text,
    pack_sequences,
    read_image_items,
    read_query,
    read_text_items,
    read_truncate,
)
from preprocess.pairs import PairTokenizer, list_token_types
from preprocess.settings import ImageSettings, Resizing, TextSettings
from preprocess.tokenization import ImagePrompter, TextTokenizer

if TYPE_CHECKING:
    from preprocess.decode_queue import TileResult
    from preprocess.tiles import TiledImage

Item = TypeVar("Item")
Tokenize = Callable[[Sequence[str], Sequence[int]], list[TokenSequence | ItemError]]
"""Tokenises the texts of valid images, of which the image tokens are counted."""
Pack = Callable[[Sequence[ImageItem], "Sequence[TileResult]"], Tensors | RequestError]
"""Makes the tensors of a request of its items and their decoded images."""

TOKENIZER = "tokenizer.json"

DECODE_TIME_LIMIT_S = 60.0
"""For a decoder that waits for a processor, too; what it may use of one is limited in `decode_worker`."""
DECODE_MEMORY_LIMIT_BYTES = 3 * 1024**3
"""Address space of a decoding process without its encoded image; decoded, the largest one takes 400 MB per copy."""
ENCODED_COPIES = 4
"""The shared memory, the worker's copy, and those of Pillow and its decoder."""


class TextStep:
    """Tokenises the items of all requests of a batch together.

    Args:
        version_dir: Folder of the model version, with its `tokenizer.json`.
        settings: Prompts and limits of the model.
    """

    def __init__(self, version_dir: Path, settings: TextSettings) -> None:
        self.tokenizer = TextTokenizer(version_dir / TOKENIZER, settings)
        self.image_embeds_dim = settings.image_embeds_dim

    def process(self, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
        """Return packed sequences for each request of a batch, or its error."""
        read = [read_or_fail(read_text_items, request) for request in requests]
        encoded = iter(self.encode(flatten(read)))
        return [
            items if isinstance(items, RequestError) else self.pack(list(islice(encoded, len(items)))) for items in read
        ]

    def encode(self, items: Sequence[TextItem | TokensItem | ItemError]) -> list[TokenSequence | ItemError]:
        """Tokenise valid items and pass errors on."""
        encoded = iter(self.tokenizer.encode([item for item in items if not isinstance(item, ItemError)]))
        return [item if isinstance(item, ItemError) else next(encoded) for item in items]

    def pack(self, encoded: list[TokenSequence | ItemError]) -> Tensors | RequestError:
        """Return one request's tensors."""
        try:
            return pack_texts(encoded, self.image_embeds_dim)
        except RequestError as error:
            return error

    def close(self) -> None:
        """Do nothing: the step has no processes."""


class RankStep:
    """Tokenises the query of each request with its documents.

    Args:
        version_dir: Folder of the model version, with its `tokenizer.json`.
        settings: Prefixes and limits of the model, and how it joins pairs.
    """

    def __init__(self, version_dir: Path, settings: TextSettings) -> None:
        self.tokenizer = PairTokenizer(version_dir / TOKENIZER, settings)
        self.image_embeds_dim = settings.image_embeds_dim

    def process(self, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
        """Return packed sequences for each request of a batch, or its error."""
        return [self.process_one(request) for request in requests]

    def process_one(self, request: Tensors) -> Tensors | RequestError:
        """Return packed sequences for a request, or its error."""
        texts = [decode_text(data) for data in request["text"]]
        valid = [text for text in texts if not isinstance(text, ItemError)]
        try:
            truncate = read_truncate(request)
            query = self.tokenizer.read(read_query(request), len(texts))
            encoded = iter(self.tokenizer.encode(query, valid, [0] * len(valid), truncate=truncate))
            sequences = [text if isinstance(text, ItemError) else next(encoded) for text in texts]
            tensors = pack_texts(sequences, self.image_embeds_dim)
        except RequestError as error:
            return error
        if self.tokenizer.pair.has_token_types:
            tensors["token_types"] = list_token_types(sequences)
        return tensors

    def close(self) -> None:
        """Do nothing: the step has no processes."""


class DecodeStep(ABC):
    """Decodes and tiles images, in processes that all requests share.

    Args:
        image: Tiling of the model's images.
    """

    def __init__(self, image: ImageSettings) -> None:
        from preprocess.decode_pool import DecodePool  # text steps never load the image code

        self.rows_per_tile = image.tiling.rows_per_tile
        memory_limit_bytes = DECODE_MEMORY_LIMIT_BYTES + ENCODED_COPIES * image.limits.max_bytes
        self.pool = DecodePool(
            image.decode_workers, DECODE_TIME_LIMIT_S, memory_limit_bytes, image.tiling, image.limits
        )

    def submit(self, request: Tensors, timeout_s: float = math.inf) -> Future[Tensors | RequestError]:
        """Begin to process a request, beside others and without delay by them.

        Args:
            request: Its inputs.
            timeout_s: Seconds from now after which nobody waits for the result.

        Returns:
            Patches and what belongs to them, or the request's error. Raises `ExpiredError` once the time is over.
        """
        result: Future[Tensors | RequestError] = Future()
        try:
            items, pack = read_image_items(request), self.prepare(request)
        except RequestError as error:
            result.set_result(error)
            return result

        def finish(decoded: Future[list[TileResult]]) -> None:
            try:
                result.set_result(pack(items, decoded.result()))
            except Exception as error:
                result.set_exception(error)

        files = [item.file for item in items]
        self.pool.submit(files, time.monotonic() + timeout_s).add_done_callback(finish)
        return result

    @abstractmethod
    def prepare(self, request: Tensors) -> Pack:
        """Return what makes the tensors of a request of its decoded images; a failed item has no patches.

        Raises:
            RequestError: An input besides the images is invalid.
        """

    def pack_tiles(self, tiled: Sequence[TiledImage | None]) -> dict[str, NDArray[Any]]:
        """Return the patches of a request, and the counts of each item; None for one that failed."""
        tile_counts = np.array([image.tiles if image else 0 for image in tiled], dtype=np.int32)
        return {
            "patches": join_rows([image.patches for image in tiled if image]),
            "image_rows": tile_counts * self.rows_per_tile,
            "image_token_counts": tile_counts * self.rows_per_tile,
            "tile_counts": tile_counts,
            "page_counts": np.array([image.pages if image else 0 for image in tiled], dtype=np.int32),
        }

    def close(self) -> None:
        """Stop the decoding processes."""
        self.pool.close()


class TowerStep(DecodeStep):
    """Preprocesses images for an image tower, whose output is the embedding."""

    def prepare(self, request: Tensors) -> Pack:
        """Return what makes the tensors of a request of its decoded images.

        Raises:
            RequestError: `truncate` is invalid.
        """
        read_truncate(request)  # there is no text to cut
        return self.pack

    def pack(self, items: Sequence[ImageItem], tiled: Sequence[TileResult]) -> Tensors | RequestError:
        """Return one request's tensors; the tokens of an image are its patches."""
        errors = [str(image) if isinstance(image, ItemError) else "" for image in tiled]
        if all(errors):
            return RequestError("\n".join(errors))
        tensors = self.pack_tiles([None if isinstance(image, ItemError) else image for image in tiled])
        return tensors | {
            "token_counts": tensors["image_rows"],
            "untruncated_token_counts": tensors["image_rows"],
            "errors": np.array([error.encode() for error in errors], dtype=np.object_),
        }


class ImageStep(DecodeStep):
    """Preprocesses images, alone or with text, for a language model.

    Args:
        version_dir: Folder of the model version, with its `tokenizer.json`.
        text: Prompts and limits of the model.
        image: Tiling and prompt of its images.
    """

    def __init__(self, version_dir: Path, text: TextSettings, image: ImageSettings) -> None:
        self.load_tokenizer(version_dir / TOKENIZER, text, image)
        super().__init__(image)

    def load_tokenizer(self, path: Path, text: TextSettings, image: ImageSettings) -> None:
        """Load what tokenises prompts."""
        self.prompter = ImagePrompter(TextTokenizer(path, text), image)

    def prepare(self, request: Tensors) -> Pack:
        """Return what makes the tensors of a request of its decoded images.

        Raises:
            RequestError: `truncate` is invalid.
        """
        return partial(self.pack, tokenize=partial(self.prompter.encode, truncate=read_truncate(request)))

    def pack(
        self, items: Sequence[ImageItem], tiled: Sequence[TileResult], tokenize: Tokenize
    ) -> Tensors | RequestError:
        """Return one request's tensors; a failed item has neither patches nor tokens."""
        encoded = self.encode(items, tiled, tokenize)
        kept = [
            None if isinstance(image, ItemError) or isinstance(sequence, ItemError) else image
            for image, sequence in zip(tiled, encoded, strict=True)
        ]
        try:
            tensors = pack_sequences(encoded)
        except RequestError as error:
            return error
        return tensors | self.pack_tiles(kept)

    def encode(
        self, items: Sequence[ImageItem], tiled: Sequence[TileResult], tokenize: Tokenize
    ) -> list[TokenSequence | ItemError]:
        """Tokenise the prompts of valid items and pass the errors of the others on."""
        encoded: list[TokenSequence | ItemError] = [EMPTY_SEQUENCE] * len(items)
        valid: dict[int, tuple[str, int]] = {}  # index to text and number of image tokens
        for index, (item, image) in enumerate(zip(items, tiled, strict=True)):
            if isinstance(image, ItemError):
                encoded[index] = image
            elif isinstance(item.text, ItemError):
                encoded[index] = item.text
            else:
                valid[index] = item.text, image.tiles * self.rows_per_tile
        texts, counts = [text for text, _ in valid.values()], [count for _, count in valid.values()]
        for index, sequence in zip(valid, tokenize(texts, counts), strict=True):
            encoded[index] = sequence
        return encoded


class RankImageStep(ImageStep):
    """Decodes and tiles images, and tokenises the query of each request with them and their texts.

    Args:
        version_dir: Folder of the model version, with its `tokenizer.json`.
        text: Prefixes and limits of the model, and how it joins pairs.
        image: Tiling and prompt of its images.
    """

    def load_tokenizer(self, path: Path, text: TextSettings, image: ImageSettings) -> None:
        """Load what tokenises pairs."""
        self.tokenizer = PairTokenizer(path, text, image)

    def prepare(self, request: Tensors) -> Pack:
        """Return what makes the tensors of a request of its decoded images.

        Raises:
            RequestError: The query or `truncate` is invalid.
        """
        query = self.tokenizer.read(read_query(request), len(request["image"]))
        return partial(self.pack, tokenize=partial(self.tokenizer.encode, query, truncate=read_truncate(request)))


Step = TextStep | RankStep | DecodeStep


def load_step(version_dir: Path, parameters: dict[str, str]) -> Step:
    """Create the step named by the parameters `modality` and `task`."""
    text = TextSettings.read(parameters)
    if parameters["modality"] == "text":
        return RankStep(version_dir, text) if text.pair else TextStep(version_dir, text)
    image = ImageSettings.read(parameters)
    if isinstance(image.tiling, Resizing):
        return TowerStep(image)
    return RankImageStep(version_dir, text, image) if text.pair else ImageStep(version_dir, text, image)


def read_or_fail(read: Callable[[Tensors], list[Item]], request: Tensors) -> list[Item] | RequestError:
    """Return a request's items, or the error that fails the request."""
    try:
        return read(request)
    except RequestError as error:
        return error


def flatten(read: Sequence[list[Item] | RequestError]) -> list[Item]:
    """Return the items of all valid requests."""
    return [item for items in read if not isinstance(items, RequestError) for item in items]


def join_rows(arrays: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Concatenate arrays (rows, values) without copying a single one, which has the megabytes of a page."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def pack_texts(encoded: Sequence[TokenSequence | ItemError], image_embeds_dim: int) -> dict[str, NDArray[Any]]:
    """Return the tensors of one request of texts.

    Raises:
        RequestError: Every item failed.
    """
    tensors = pack_sequences(encoded)
    return tensors | (placeholder_image_row(len(encoded), image_embeds_dim) if image_embeds_dim else {})


def placeholder_image_row(count: int, width: int) -> dict[str, NDArray[Any]]:
    """Return one row of NaN that no token reads: ragged tensors must not be empty."""
    image_rows = np.zeros(count, dtype=np.int32)
    image_rows[0] = 1
    return {"image_embeds": np.full((1, width), np.nan, dtype=np.float32), "image_rows": image_rows}
