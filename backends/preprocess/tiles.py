"""Images to tiles, and tiles to rows of `patches`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocess.settings import PIXELS_PER_BLOCK_SIDE, VALUES_PER_ROW, Tiling

PATCH_SIDE = PIXELS_PER_BLOCK_SIDE // 2

# From the model's reference: showing more than 0.6 of the image's own pixels does not raise a grid's score further.
MAX_AREA_SCORE = 0.6


@dataclass(frozen=True)
class TiledImage:
    """An image in the form that the vision encoder takes.

    Attributes:
        patches: Pixels 0 to 255, uint8 (rows per tile * tiles, 3072), in the order of `write_patches`.
        tiles: Number of tiles, including the thumbnail.
        pages: Pages of the PDF of which this is one; 0 for an image.
    """

    patches: npt.NDArray[np.uint8]
    tiles: int
    pages: int = 0


class Grid(NamedTuple):
    """The number of tiles side by side, and of those above one another."""

    columns: int
    rows: int


def choose_grid(width: int, height: int, tiling: Tiling) -> Grid:
    """Choose the grid that best fits an image's proportions and keeps its pixels, as the model's reference does.

    A grid of c columns and r rows scores `min(c·r·tile_size² / (w·h), 0.6) · min(q/a, a/q)` with q = c/r and a = w/h.
    The smaller grid wins a tie.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        tiling: Size and maximum number of tiles.
    """
    aspect = width / height
    best, best_score = Grid(1, 1), 0.0
    for grid in _list_grids(tiling.max_tiles):
        shape = grid.columns / grid.rows
        kept = grid.columns * grid.rows * tiling.tile_size**2 / (width * height)
        score = min(kept, MAX_AREA_SCORE) * min(shape / aspect, aspect / shape)
        if score > best_score:
            best, best_score = grid, score
    return best


def _list_grids(max_tiles: int) -> list[Grid]:
    """List all grids of at most `max_tiles` tiles, smallest first."""
    grids = (Grid(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1))
    return sorted(grids, key=lambda grid: grid.columns * grid.rows)


def cut_tiles(image: Image.Image, tiling: Tiling, out: npt.NDArray[np.uint8] | None = None) -> TiledImage:
    """Resize an RGB image to its grid and cut it into tiles, row by row, then the thumbnail if there are several.

    Args:
        image: An image of mode RGB.
        tiling: How the model wants its images cut.
        out: Receives the patches: uint8 (rows or more, 3072), contiguous. Memory is allocated if absent.

    Returns:
        The tiled image; its patches are a view of `out` if that was given.
    """
    grid = choose_grid(image.width, image.height, tiling)
    resized = [_resize(image, grid, tiling)]
    tiles = grid.columns * grid.rows
    if tiles > 1 and tiling.use_thumbnail:
        resized.append(_resize(image, Grid(1, 1), tiling))
        tiles += 1
    rows = tiles * tiling.rows_per_tile
    patches = np.empty((rows, VALUES_PER_ROW), np.uint8) if out is None else out[:rows]
    start = 0
    for pixels in resized:
        end = start + pixels.size // VALUES_PER_ROW
        write_patches(pixels, tiling.tile_size, patches[start:end])
        start = end
    return TiledImage(patches, tiles)


def _resize(image: Image.Image, grid: Grid, tiling: Tiling) -> npt.NDArray[np.uint8]:
    size = (grid.columns * tiling.tile_size, grid.rows * tiling.tile_size)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def write_patches(pixels: npt.NDArray[np.uint8], tile_size: int, out: npt.NDArray[np.uint8]) -> None:
    """Write the tiles of a resized image as rows of `patches`, in one pass over the pixels.

    The row of image token (i, j) of a tile holds the pixels `[32i:32i+32, 32j:32j+32]` as four 16x16x3 patches,
    (2i, 2j), (2i, 2j+1), (2i+1, 2j), (2i+1, 2j+1), each flattened row, column, channel: what the pixel shuffle merges.

    Args:
        pixels: Array uint8 (rows * tile_size, columns * tile_size, 3), contiguous.
        tile_size: Width and height of a tile in pixels.
        out: Array uint8 (tokens, 3072), contiguous, filled tile by tile, row by row.
    """
    tile_rows, tile_columns = pixels.shape[0] // tile_size, pixels.shape[1] // tile_size
    blocks = tile_size // PIXELS_PER_BLOCK_SIDE
    line = PATCH_SIDE * 3
    # tile row, i, upper or lower patch, pixel row | tile column, j, left or right patch, pixel row's values
    split = pixels.reshape(tile_rows, blocks, 2, PATCH_SIDE, tile_columns, blocks, 2, line)
    target = out.reshape(tile_rows, tile_columns, blocks, blocks, 2, 2, PATCH_SIDE, line)
    np.copyto(target, split.transpose(0, 4, 1, 5, 2, 6, 3, 7))
