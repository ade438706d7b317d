"""Cuts a batch into chunks, one for each inference request, and merges their results.

One request with many items would starve the batcher of other clients' items and hold the memory of all of them at
once; one request per item would pay the fixed cost of a call each time. So chunks are bounded by items and by
estimated tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gateway.engine.interface import Counts, EmbedBatch, EmbedResult, ItemFailure, ServedModel, TokenizeResult
from gateway.types import DocumentItem, ImageItem, ItemWithImage, RequestItem, TextImageItem, TextItem, TokensItem

EnsembleModality: TypeAlias = Literal["text", "image"]
"""The ensemble an item goes to; an image with text beside it goes to `image`."""

BYTES_PER_TOKEN = {True: 4, False: 3}
"""Bytes of UTF-8 for a token, roughly, of a text that is ASCII and of one that is not.

Most tokens of Chinese, Japanese and Korean are a character, which has three bytes.
"""

TOKENISED_BYTES_PER_TOKEN = 64
"""Bytes that are tokenised in the time in which a token is embedded, roughly."""

SPECIAL_TOKENS = 4
"""Tokens that prefix and special tokens add to an item, roughly."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one inference request carries.

    Attributes:
        modality: The ensemble it goes to.
        indices: Positions of its items in the batch.
    """

    modality: EnsembleModality
    indices: Sequence[int]


def estimate_tokens(item: RequestItem, model: ServedModel) -> int:
    """Estimate the tokens of an item, its cost for admission and chunking; images count with all possible tiles.

    Returns:
        At least 1 for a text. Beyond `model.max_tokens` it counts only as what it takes to tokenise it, for it is cut
        or refused. A PDF counts as one page, as long as its pages are not known.
    """
    match item:
        case TextItem(text):
            is_ascii = text.isascii()
            size_bytes = len(text) if is_ascii else len(text.encode())
            tokens = min(size_bytes // BYTES_PER_TOKEN[is_ascii] + SPECIAL_TOKENS, model.max_tokens)
            tokens = max(tokens, model.padded_tokens)
            return tokens + size_bytes // TOKENISED_BYTES_PER_TOKEN
        case TokensItem(token_ids):
            tokens = max(min(len(token_ids), model.max_tokens), model.padded_tokens)
            return tokens + len(token_ids) * BYTES_PER_TOKEN[True] // TOKENISED_BYTES_PER_TOKEN
        case ImageItem() | DocumentItem():
            return model.max_tiles * model.tokens_per_tile
        case TextImageItem(text, _):
            return model.max_tiles * model.tokens_per_tile + estimate_tokens(TextItem(text), model)


def cut_batch(batch: EmbedBatch, *, max_items: int, max_tokens: int) -> list[Chunk]:
    """Sort the items by ensemble and cut each list.

    Args:
        batch: At least one item.
        max_items: Most items of a chunk.
        max_tokens: Most estimated tokens of a chunk; an item above it goes alone.

    Returns:
        Chunks that cover every index once.
    """
    indices: dict[EnsembleModality, list[int]] = {"text": [], "image": []}
    for index, item in enumerate(batch.items):
        indices["image" if isinstance(item, ItemWithImage) else "text"].append(index)
    return [
        Chunk(modality, indices[modality][piece.start : piece.stop])
        for modality in indices
        for piece in cut_list(
            [batch.item_tokens[index] for index in indices[modality]], max_items=max_items, max_cost=max_tokens
        )
    ]


def count_tokens(batch: EmbedBatch, chunk: Chunk) -> int:
    """Return the estimated tokens of a chunk."""
    return sum(batch.item_tokens[index] for index in chunk.indices)


def count_unused_tokens(model: ServedModel, result: EmbedResult) -> int:
    """Return by how much `estimate_tokens` was above the tokens of images that were embedded."""
    embedded = len(result.image_token_counts) - len(result.failures)
    return embedded * model.max_tiles * model.tokens_per_tile - int(result.image_token_counts.sum())


def cut_list(costs: Sequence[int], *, max_items: int, max_cost: int) -> list[range]:
    """Cut neighbouring items into pieces, in order.

    Args:
        costs: Cost of each item.
        max_items: Most items of a piece.
        max_cost: Most cost of a piece; an item above it goes alone.

    Returns:
        Consecutive, non-empty ranges that cover `costs`.
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


def merge_tokens(chunks: Sequence[Chunk], results: Sequence[TokenizeResult], count: int) -> TokenizeResult:
    """Put the results of all chunks back into the order of the batch."""
    token_ids: list[Sequence[int]] = [[]] * count
    for chunk, result in zip(chunks, results, strict=True):
        for index, ids in zip(chunk.indices, result.token_ids, strict=True):
            token_ids[index] = ids
    page_counts = np.zeros(count, np.int32)
    for chunk, result in zip(chunks, results, strict=True):
        page_counts[chunk.indices] = result.page_counts
    tokens, untruncated, image_tokens, tiles, failures = merge_counts(chunks, results, count)
    return TokenizeResult(token_ids, tokens, untruncated, image_tokens, tiles, page_counts, failures)


def merge_results(chunks: Sequence[Chunk], results: Sequence[EmbedResult], count: int, dimensions: int) -> EmbedResult:
    """Put the results of all chunks back into the order of the batch."""
    embeddings = np.empty((count, dimensions), np.float32)
    for chunk, result in zip(chunks, results, strict=True):
        embeddings[chunk.indices] = result.embeddings
    return EmbedResult(embeddings, *merge_counts(chunks, results, count))


def merge_counts(
    chunks: Sequence[Chunk], results: Sequence[EmbedResult | TokenizeResult], count: int
) -> tuple[Counts, Counts, Counts, Counts, dict[int, ItemFailure]]:
    """Return what all results have, merged and in the order of their fields: four counts per item, and the failures."""
    counts = np.zeros((4, count), np.int32)
    failures: dict[int, ItemFailure] = {}
    for chunk, result in zip(chunks, results, strict=True):
        indices = chunk.indices
        counts[:, indices] = (
            result.token_counts,
            result.untruncated_token_counts,
            result.image_token_counts,
            result.tile_counts,
        )
        failures.update({indices[position]: failure for position, failure in result.failures.items()})
    return counts[0], counts[1], counts[2], counts[3], dict(sorted(failures.items()))
