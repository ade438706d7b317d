"""Images to the one size that an image tower takes, and these to rows of `patches`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocess.items import ImageError
from preprocess.settings import Resizing
from preprocess.tiles import TiledImage

MAX_RESIZED_PIXELS = 1 << 25
"""Of an image whose shorter side is resized: one far longer than wide would take gigabytes, for a small part of it."""

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def cut_patches(image: Image.Image, resizing: Resizing, out: npt.NDArray[np.uint8] | None = None) -> TiledImage:
    """Resize an RGB image and cut it into patches, row by row, each flattened row, column, channel.

    Args:
        image: An image of mode RGB.
        resizing: How the model wants its images.
        out: Receives the patches: uint8 (rows or more, bytes of a patch), contiguous. Memory is allocated if absent.

    Returns:
        The image as one tile; its patches are a view of `out` if that was given.

    Raises:
        ImageError: The image is far longer than wide, or far wider than high.
    """
    rows, side, patch = resizing.rows_per_tile, resizing.patches_per_side, resizing.patch_size
    patches = np.empty((rows, resizing.values_per_row), np.uint8) if out is None else out[:rows]
    pixels = resize_image(image, resizing)[: side * patch, : side * patch]
    split = pixels.reshape(side, patch, side, patch * 3)
    np.copyto(patches.reshape(side, side, patch, patch * 3), split.transpose(0, 2, 1, 3))
    return TiledImage(patches, tiles=1)


def resize_image(image: Image.Image, resizing: Resizing) -> npt.NDArray[np.uint8]:
    """Resize an RGB image, and cut out its middle if it keeps its proportions, as the image processors of CLIP do.

    Args:
        image: An image of mode RGB.
        resizing: How the model wants its images.

    Returns:
        Pixels `(image_size, image_size, 3)`.

    Raises:
        ImageError: The image is far longer than wide, or far wider than high.
    """
    side, edge = resizing.image_size, resizing.shortest_edge
    if edge is None:
        return np.asarray(image.resize((side, side), _FILTERS[resizing.resample]))
    shorter = min(image.size)
    width, height = (int(edge * length / shorter) for length in image.size)
    if width * height > MAX_RESIZED_PIXELS:
        raise ImageError("image_invalid", f"the image is {image.width}x{image.height} pixels: too long and narrow")
    resized = image.resize((width, height), _FILTERS[resizing.resample])
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(resized.crop((left, top, left + side, top + side)))
