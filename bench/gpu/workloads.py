"""What is embedded: batches of sequences and pages, and the operations that a model of these widths needs for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.spec import IMAGE_TOKEN_BYTES
from export.tiny_checkpoint.tensors import FULL_SIZE, Widths
from export.validation.nemotron_vl import SampleItem

SEED = 11
# Of the checkpoints that `export.tiny_checkpoint` writes: tokens of its tokenizer that stand for text.
FIRST_TEXT_ID, LAST_TEXT_ID = 10, 500

TOKENS_PER_TILE, PATCHES_PER_TILE, PATCH_VALUES = 256, 1024, 768
TILES_PER_PAGE = 7
# "passage: <img>" and "</img> " around the image tokens of a page, roughly.
PAGE_HEAD_TOKENS, PAGE_TAIL_TOKENS = 8, 6
QUERY_TOKENS = 12

PAGES = "7-tile pages"
MIXED = "mixed lengths"
SHORTEST = 16

Batch = Sequence[SampleItem]


@dataclass(frozen=True)
class Size:
    """A size of the model, and of the batches that keep a device busy with it.

    Attributes:
        widths: Widths of the model.
        lengths: Lengths of sequences, short, middle and long.
        batch_tokens: Text tokens of a batch.
        batch_pages: Pages of a batch.
        passages_per_request: Passages of the middle length that arrive together, beside queries.
        seconds: Length of one measurement of throughput.
        latency_seconds: Length of one measurement of latency.
        matrix_side: Side of the matrices whose product is the peak.
    """

    widths: Widths
    lengths: tuple[int, int, int]
    batch_tokens: int
    batch_pages: int
    passages_per_request: int
    seconds: float
    latency_seconds: float
    matrix_side: int


SIZES: Mapping[str, Size] = {
    "full": Size(FULL_SIZE, (32, 512, 2048), 8192, 4, 4, seconds=2.0, latency_seconds=8.0, matrix_side=8192),
    "tiny": Size(Widths(), (8, 32, 128), 256, 1, 1, seconds=0.1, latency_seconds=0.5, matrix_side=256),
}


def make_workloads(size: Size, image_token_id: int) -> dict[str, Batch]:
    """Return a batch for each workload, by name: equal lengths, mixed lengths, and pages."""
    random = np.random.default_rng(SEED)
    workloads: dict[str, Batch] = {
        f"{length} tokens": [make_text(random, length) for _ in range(size.batch_tokens // length)]
        for length in size.lengths
    }
    workloads[MIXED] = [make_text(random, length) for length in draw_lengths(random, size)]
    workloads[PAGES] = [make_page(random, TILES_PER_PAGE, image_token_id) for _ in range(size.batch_pages)]
    return workloads


def make_samples(image_token_id: int) -> dict[str, Batch]:
    """Return what engines are compared on: texts of all lengths, an image of one tile, and a page."""
    random = np.random.default_rng(SEED + 1)
    lengths = (1, QUERY_TOKENS, 33, 100, 256, 257, 512, 700)
    return {
        "texts": [make_text(random, length) for length in lengths],
        "images": [make_page(random, tiles, image_token_id) for tiles in (1, TILES_PER_PAGE)],
    }


def make_query() -> Batch:
    """Return one short text."""
    return [make_text(np.random.default_rng(SEED + 2), QUERY_TOKENS)]


def make_request(size: Size) -> Batch:
    """Return the passages of one request."""
    random = np.random.default_rng(SEED + 3)
    return [make_text(random, size.lengths[1]) for _ in range(size.passages_per_request)]


def draw_lengths(random: np.random.Generator, size: Size) -> Iterator[int]:
    """Yield lengths of which each doubling is equally likely, until they add up to a batch."""
    tokens = size.batch_tokens
    while tokens > 0:
        length = min(tokens, round(SHORTEST * (size.lengths[-1] / SHORTEST) ** random.random()))
        tokens -= length
        yield length


def make_text(random: np.random.Generator, length: int) -> SampleItem:
    """Return a text of random tokens."""
    return SampleItem(random.integers(FIRST_TEXT_ID, LAST_TEXT_ID, length).tolist())


def make_page(random: np.random.Generator, tiles: int, image_token_id: int) -> SampleItem:
    """Return an image of random pixels in its prompt."""
    rows = tiles * TOKENS_PER_TILE
    head, tail = make_text(random, PAGE_HEAD_TOKENS).input_ids, make_text(random, PAGE_TAIL_TOKENS).input_ids
    patches = random.integers(0, 256, (rows, IMAGE_TOKEN_BYTES), np.uint8)
    return SampleItem([*head, *[image_token_id] * rows, *tail], patches)


def count_tokens(batch: Batch) -> int:
    """Return the tokens of a batch, including image tokens."""
    return sum(len(item.input_ids) for item in batch)


def count_operations(batch: Batch, widths: Widths) -> int:
    """Return the floating-point operations of the matrix products for a batch, padding not included."""
    tiles = sum(len(item.patches) for item in batch if item.patches is not None) // TOKENS_PER_TILE
    per_token, per_score = _count_language_operations(widths)
    language = sum(len(item.input_ids) * (per_token + len(item.input_ids) * per_score) for item in batch)
    return language + tiles * _count_tile_operations(widths)


def _count_language_operations(widths: Widths) -> tuple[int, int]:
    """Return the operations for a token, and for a pair of tokens of a sequence."""
    width, key_width = widths.hidden_size, widths.head_size * widths.kv_heads
    weights = 2 * width**2 + 2 * width * key_width + 3 * width * widths.intermediate_size
    return 2 * widths.layers * weights, 4 * widths.layers * width


def _count_tile_operations(widths: Widths) -> int:
    width = widths.vision_hidden_size
    weights = 4 * width**2 + 2 * width * widths.vision_intermediate_size
    per_patch = 2 * PATCH_VALUES * width + widths.vision_layers * (2 * weights + 4 * PATCHES_PER_TILE * width)
    per_token = 2 * (4 * width * widths.hidden_size + widths.hidden_size**2)
    return PATCHES_PER_TILE * per_patch + TOKENS_PER_TILE * per_token
