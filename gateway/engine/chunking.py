"""Cuts a batch into the chunks that inference requests carry, and puts their answers together again.

One request with many items starves the batcher of other clients' items and holds the memory of all of them at once; one
request per item pays the fixed cost of a call each time. So chunks are bounded by items and by estimated tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gateway.engine.interface import EmbedBatch, Embedded, ItemFailure, ServedModel
from gateway.items import ImageItem, Item, PicturedItem, TextImageItem, TextItem, TokensItem

EnsembleModality: TypeAlias = Literal["text", "image"]
"""Which ensemble takes an item; a picture with text beside it goes to `image`."""

BYTES_PER_TOKEN = 4
"""UTF-8 bytes of a token of English, about. An estimate too low only makes a chunk larger."""

SPECIAL_TOKENS = 4
"""Tokens that a prefix and the special tokens add to an item, about."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one inference request carries.

    Attributes:
        modality: which ensemble it goes to.
        indices: places of its items in the batch.
    """

    modality: EnsembleModality
    indices: Sequence[int]


def cut_batch(batch: EmbedBatch, *, max_items: int, max_tokens: int) -> list[Chunk]:
    """Sorts the items by ensemble and cuts each list.

    Args:
        batch: at least one item.
        max_items: most items of a chunk.
        max_tokens: most estimated tokens of a chunk; an item above it goes alone.

    Returns:
        Chunks that cover every index once.
    """
    indices: dict[EnsembleModality, list[int]] = {"text": [], "image": []}
    costs: dict[EnsembleModality, list[int]] = {"text": [], "image": []}
    for index, item in enumerate(batch.items):
        modality: EnsembleModality = "image" if isinstance(item, PicturedItem) else "text"
        indices[modality].append(index)
        costs[modality].append(estimate_tokens(item, batch.model))
    return [
        Chunk(modality, indices[modality][piece.start : piece.stop])
        for modality in indices
        for piece in cut_list(costs[modality], max_items=max_items, max_cost=max_tokens)
    ]


def cut_list(costs: Sequence[int], *, max_items: int, max_cost: int) -> list[range]:
    """Cuts neighbouring items into pieces, in order.

    Args:
        costs: estimated cost of each item.
        max_items: most items of a piece.
        max_cost: most cost of a piece; an item above it goes alone.

    Returns:
        Ranges over `costs` that follow one another and cover it; none is empty.
    """
    pieces: list[range] = []
    start = 0
    total = 0
    for index, cost in enumerate(costs):
        if index > start and (index - start == max_items or total + cost > max_cost):
            pieces.append(range(start, index))
            start, total = index, 0
        total += cost
    if costs:
        pieces.append(range(start, len(costs)))
    return pieces


def estimate_tokens(item: Item, model: ServedModel) -> int:
    """What an item costs, in tokens, about; pictures count with all the tiles they may have."""
    match item:
        case TextItem(text):
            return estimate_text_tokens(len(text), model.max_tokens)
        case TokensItem(token_ids):
            return min(len(token_ids), model.max_tokens)
        case ImageItem():
            return model.max_tiles * model.tokens_per_tile
        case TextImageItem(text, _):
            image_tokens = model.max_tiles * model.tokens_per_tile
            return image_tokens + estimate_text_tokens(len(text), model.max_tokens)


def estimate_text_tokens(utf8_bytes: int, max_tokens: int) -> int:
    """Tokens of a text, guessed from its size.

    Args:
        utf8_bytes: size of the text.
        max_tokens: the model's longest sequence: a longer text is cut, or refused without inference.

    Returns:
        A number from 1 to `max_tokens`.
    """
    return min(utf8_bytes // BYTES_PER_TOKEN + SPECIAL_TOKENS, max_tokens)


def merge_chunks(chunks: Sequence[Chunk], answers: Sequence[Embedded], count: int, dimensions: int) -> Embedded:
    """Puts the answers of all chunks back into the order of the batch."""
    embeddings = np.empty((count, dimensions), np.float32)
    counts = np.zeros((3, count), np.int32)
    failures: dict[int, ItemFailure] = {}
    for chunk, answer in zip(chunks, answers, strict=True):
        embeddings[chunk.indices] = answer.embeddings
        counts[:, chunk.indices] = answer.token_counts, answer.image_token_counts, answer.tile_counts
        failures.update({chunk.indices[place]: failure for place, failure in answer.failures.items()})
    return Embedded(embeddings, counts[0], counts[1], counts[2], dict(sorted(failures.items())), len(chunks))
