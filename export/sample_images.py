"""Made-up pictures of the size of a tile: what an exported model is checked with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SEED = 20240229


def paint_tiles(count: int, side: int) -> NDArray[np.uint8]:
    """Return pictures of soft clouds under a fine grain, the same in every run, `(count, side, side, 3)`."""
    random = np.random.default_rng(_SEED)
    coarse = random.integers(0, 256, (count, 9, 9, 3)).astype(np.float32)
    place = np.linspace(0, 8, side, endpoint=False)
    left, share = place.astype(np.intp), (place % 1).astype(np.float32)
    columns = coarse[:, :, left] * (1 - share)[:, None] + coarse[:, :, left + 1] * share[:, None]
    clouds = columns[:, left] * (1 - share)[:, None, None] + columns[:, left + 1] * share[:, None, None]
    grain = random.normal(0, 8, clouds.shape).astype(np.float32)
    return np.clip(clouds + grain, 0, 255).astype(np.uint8)


def cut_patches(tiles: NDArray[np.uint8], patch: int, block: int) -> NDArray[np.uint8]:
    """Return the rows of `patches` of `(tiles, side, side, 3)`, one for each image token.

    A row holds a square of `block²` patches one after the other, each flattened row, column, channel.
    """
    count, side = tiles.shape[:2]
    blocks = side // patch // block
    grid = tiles.reshape(count, blocks, block, patch, blocks, block, patch, 3)
    return grid.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(count * blocks * blocks, block * block * patch * patch * 3)
