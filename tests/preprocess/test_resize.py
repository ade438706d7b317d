"""Images for image towers have the pixels of transformers' image processors."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling
from transformers import CLIPImageProcessor, SiglipImageProcessor

from preprocess.decode_pool import DecodePool
from preprocess.items import ImageError, ImageFile
from preprocess.resize import MAX_RESIZED_PIXELS, cut_patches, resize_image
from preprocess.settings import Resizing
from preprocess.tiles import TiledImage
from tests.preprocess.image_files import draw_scene, encode

FILTERS = {each.name.lower(): each for each in (Resampling.LANCZOS, Resampling.BILINEAR, Resampling.BICUBIC)}
SIZES = [(224, 224), (640, 480), (101, 333), (20, 7), (7, 300), (1, 1), (223, 225)]


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_a_stretched_image_has_the_pixels_of_siglip(size: tuple[int, int], resample: str) -> None:
    image = add_noise(draw_scene(*size))
    square = {"height": 56, "width": 56}
    processor = SiglipImageProcessor(size=square, resample=FILTERS[resample], do_rescale=False, do_normalize=False)
    np.testing.assert_array_equal(resize_image(image, Resizing(56, 14, resample)), read_pixels(processor, image))


@pytest.mark.parametrize("edge", [224, 225, 256])
@pytest.mark.parametrize("size", SIZES)
def test_the_middle_of_an_image_has_the_pixels_of_clip(size: tuple[int, int], edge: int) -> None:
    image = add_noise(draw_scene(*size))
    processor = CLIPImageProcessor(size={"shortest_edge": edge}, do_rescale=False, do_normalize=False)
    np.testing.assert_array_equal(
        resize_image(image, Resizing(224, 32, "bicubic", edge)), read_pixels(processor, image)
    )


def test_patches_are_cut_row_by_row_without_the_rest() -> None:
    image = add_noise(draw_scene(23, 23))
    out = np.zeros((20, 6 * 6 * 3), np.uint8)
    tiled = cut_patches(image, Resizing(23, 6, "bicubic"), out)
    assert (tiled.tiles, tiled.patches.shape) == (1, (9, 108)) and np.shares_memory(tiled.patches, out)
    pixels = np.asarray(image)
    for number, patch in enumerate(tiled.patches):
        row, column = divmod(number, 3)
        expected = pixels[6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
        np.testing.assert_array_equal(patch, expected.ravel())
    np.testing.assert_array_equal(cut_patches(image, Resizing(23, 6, "bicubic")).patches, tiled.patches)


def test_an_image_far_longer_than_wide_is_refused() -> None:
    resizing = Resizing(224, 32, "bicubic", 224)
    widest = MAX_RESIZED_PIXELS // 224**2
    assert resize_image(Image.new("RGB", (widest, 1)), resizing).shape == (224, 224, 3)
    with pytest.raises(ImageError, match=f"the image is 1x{widest + 1} pixels: too long and narrow"):
        resize_image(Image.new("RGB", (1, widest + 1)), resizing)


def test_decoding_processes_cut_patches() -> None:
    image = add_noise(draw_scene(90, 60))
    resizing = Resizing(42, 7, "bilinear", 50)
    with DecodePool(1, 60.0, 3 << 30, resizing) as pool:
        [tiled, failed] = pool.preprocess([ImageFile(encode(image, "PNG")), ImageFile(b"GARBAGE")])
    assert isinstance(tiled, TiledImage) and isinstance(failed, ImageError)
    np.testing.assert_array_equal(tiled.patches, cut_patches(image, resizing).patches)


def read_pixels(processor: Any, image: Image.Image) -> np.ndarray:
    """Return what an image processor makes of an image, `(height, width, 3)`."""
    processed = processor(image, return_tensors="np", input_data_format="channels_last")
    pixels: np.ndarray = processed["pixel_values"][0].transpose(1, 2, 0)
    return pixels


def add_noise(image: Image.Image) -> Image.Image:
    """Return the image with sharp edges, at which filters differ."""
    pixels = np.asarray(image).astype(np.int16)
    noise = np.random.default_rng(7).integers(-40, 40, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
