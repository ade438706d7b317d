"""The grid of an image and the order of its patches."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.decode import decode_image
from preprocess.settings import ImageLimits, Tiling
from preprocess.tiles import choose_grid, cut_tiles, write_patches
from tests.preprocess.image_files import draw_scene

CHECKPOINT = Path(__file__).parents[1] / "data" / "tiny-checkpoint"
GOLDEN_IMAGES = [item for item in json.loads((CHECKPOINT / "golden.json").read_text()) if item["image"]]
assert GOLDEN_IMAGES
TILING = Tiling()


def write_patches_by_loop(tile: np.ndarray) -> np.ndarray:
    rows = []
    for i in range(tile.shape[0] // 32):
        for j in range(tile.shape[1] // 32):
            row = []
            for p, q in [(2 * i, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j), (2 * i + 1, 2 * j + 1)]:
                row.append(tile[16 * p : 16 * p + 16, 16 * q : 16 * q + 16, :].reshape(-1))
            rows.append(np.concatenate(row))
    return np.stack(rows)


@pytest.mark.parametrize("item", GOLDEN_IMAGES, ids=lambda item: item["image"])
def test_tile_counts_equal_the_references(item):
    image = decode_image((CHECKPOINT / item["image"]).read_bytes(), ImageLimits())
    tiled = cut_tiles(image, TILING)
    assert tiled.tiles == item["tiles"]
    assert tiled.patches.shape == (256 * item["tiles"], 3072)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (1, 1)),
        ((1275, 1650), (2, 3)),
        ((1024, 1024), (2, 2)),
        ((4000, 500), (6, 1)),
        ((500, 4000), (1, 6)),
        ((1, 1), (1, 1)),
        ((16384, 1), (6, 1)),
        ((1, 16384), (1, 6)),
        ((2048, 1024), (3, 2)),
    ],
)
def test_grid_follows_proportions_and_pixels(size: tuple[int, int], grid: tuple[int, int]):
    width, height = size
    assert choose_grid(width, height, TILING) == grid


def test_fewer_tiles_allow_only_smaller_grids():
    assert choose_grid(4000, 500, Tiling(max_tiles=3)) == (3, 1)
    assert choose_grid(4000, 500, Tiling(max_tiles=1)) == (1, 1)


def test_patches_equal_those_of_a_plain_loop():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    out = np.empty((24, 3072), np.uint8)
    write_patches(pixels, 64, out)
    tiles = [pixels[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)]
    assert np.array_equal(out, np.concatenate([write_patches_by_loop(tile) for tile in tiles]))


def test_tiles_come_row_by_row_and_the_thumbnail_last():
    image = draw_scene(1275, 1650)
    resized = np.asarray(image.resize((1024, 1536), Image.Resampling.BICUBIC))
    tiles = [resized[y : y + 512, x : x + 512] for y in (0, 512, 1024) for x in (0, 512)]
    tiles.append(np.asarray(image.resize((512, 512), Image.Resampling.BICUBIC)))
    expected = np.concatenate([write_patches_by_loop(tile) for tile in tiles])
    assert np.array_equal(cut_tiles(image, TILING).patches, expected)


def test_single_tile_has_no_thumbnail():
    assert cut_tiles(draw_scene(300, 300), TILING).tiles == 1


def test_thumbnail_is_optional():
    tiled = cut_tiles(draw_scene(1275, 1650), Tiling(use_thumbnail=False))
    assert tiled.tiles == 6
    assert tiled.patches.shape == (6 * 256, 3072)


def test_patches_are_written_to_the_given_array():
    out = np.zeros((TILING.max_rows, 3072), np.uint8)
    tiled = cut_tiles(draw_scene(300, 300), TILING, out)
    assert np.shares_memory(tiled.patches, out)
    assert np.array_equal(tiled.patches, cut_tiles(draw_scene(300, 300), TILING).patches)
    assert not out[256:].any()
