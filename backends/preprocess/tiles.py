"""Images to tiles, and tiles to rows of `patches`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocess.images import PIXELS_PER_BLOCK_SIDE, VALUES_PER_ROW, TiledImage, Tiling

_PATCH_SIDE = PIXELS_PER_BLOCK_SIDE // 2
_AREA_SCORE_CAP = 0.6  # the reference's: a grid that shows more than 0.6 of the image's own pixels gains nothing more


class Grid(NamedTuple):
    """How many tiles lie side by side and one below the other."""

    columns: int
    rows: int


def choose_grid(width: int, height: int, tiling: Tiling) -> Grid:
    """Choose the grid that fits the image's proportions and keeps its pixels, as the model's reference does.

    A grid of c columns and r rows scores `min(c·r·tile_size² / (w·h), 0.6) · min(q/a, a/q)` with q = c/r and a = w/h.
    Of equal scores the smaller grid wins.

    Args:
        width: The image's width in pixels.
        height: The image's height in pixels.
        tiling: Size and greatest number of tiles.
    """
    aspect = width / height
    best, best_score = Grid(1, 1), 0.0
    for grid in _list_grids(tiling.max_tiles):
        shape = grid.columns / grid.rows
        kept = grid.columns * grid.rows * tiling.tile_size**2 / (width * height)
        score = min(kept, _AREA_SCORE_CAP) * min(shape / aspect, aspect / shape)
        if score > best_score:
            best, best_score = grid, score
    return best


def _list_grids(max_tiles: int) -> list[Grid]:
    """List all grids of at most `max_tiles` tiles by their number of tiles."""
    grids = (Grid(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1))
    return sorted(grids, key=lambda grid: grid.columns * grid.rows)


def cut_tiles(image: Image.Image, tiling: Tiling, out: npt.NDArray[np.uint8] | None = None) -> TiledImage:
    """Resize an RGB image to its grid and cut it: tiles row by row, then the thumbnail if there are several.

    Args:
        image: Of mode RGB.
        tiling: How the model wants it cut.
        out: Where the patches go, uint8 (at least as many rows as there are, 3072), contiguous; new memory if absent.

    Returns:
        Patches that lie in `out` if it was given.
    """
    grid = choose_grid(image.width, image.height, tiling)
    pictures = [_resize(image, grid, tiling)]
    tiles = grid.columns * grid.rows
    if tiles > 1 and tiling.use_thumbnail:
        pictures.append(_resize(image, Grid(1, 1), tiling))
        tiles += 1
    rows = tiles * tiling.rows_per_tile
    patches = np.empty((rows, VALUES_PER_ROW), np.uint8) if out is None else out[:rows]
    start = 0
    for picture in pictures:
        end = start + picture.size // VALUES_PER_ROW
        to_patches(picture, tiling.tile_size, patches[start:end])
        start = end
    return TiledImage(patches, tiles)


def _resize(image: Image.Image, grid: Grid, tiling: Tiling) -> npt.NDArray[np.uint8]:
    size = (grid.columns * tiling.tile_size, grid.rows * tiling.tile_size)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def to_patches(pixels: npt.NDArray[np.uint8], tile_size: int, out: npt.NDArray[np.uint8]) -> None:
    """Write the tiles of a picture as rows of `patches`, in one pass over the pixels.

    The row of image token (i, j) of a tile holds the pixels `[32i:32i+32, 32j:32j+32]` as four 16x16x3 patches,
    (2i, 2j), (2i, 2j+1), (2i+1, 2j), (2i+1, 2j+1), each flattened row, column, channel: what the pixel shuffle joins.

    Args:
        pixels: uint8 (rows · tile_size, columns · tile_size, 3), contiguous.
        tile_size: Width and height of a tile in pixels.
        out: uint8 (tokens, 3072), contiguous: is filled tile by tile, row by row.
    """
    tile_rows, tile_columns = pixels.shape[0] // tile_size, pixels.shape[1] // tile_size
    blocks = tile_size // PIXELS_PER_BLOCK_SIDE
    line = _PATCH_SIDE * 3
    # tile row, i, upper or lower patch, pixel row | tile column, j, left or right patch, pixel row's values
    split = pixels.reshape(tile_rows, blocks, 2, _PATCH_SIDE, tile_columns, blocks, 2, line)
    target = out.reshape(tile_rows, tile_columns, blocks, blocks, 2, 2, _PATCH_SIDE, line)
    np.copyto(target, split.transpose(0, 4, 1, 5, 2, 6, 3, 7))
