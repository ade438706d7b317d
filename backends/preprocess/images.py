"""The words of image preprocessing: what is allowed in, what comes out, and how an image is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from preprocess.errors import ItemError

ImageErrorCode = Literal["image_invalid", "image_unsupported", "image_too_large"]

PIXELS_PER_BLOCK_SIDE = 32
"""An image token sees a square of 32x32 pixels: four 16x16 patches, merged by the pixel shuffle."""

VALUES_PER_ROW = PIXELS_PER_BLOCK_SIDE**2 * 3
"""Bytes in a row of `patches`."""


class ImageError(ItemError):
    """An image that is refused.

    Attributes:
        code: `image_invalid`, `image_unsupported` or `image_too_large`.
        message: One sentence, without anything of the file's content.
    """

    code: ImageErrorCode

    def __init__(self, code: ImageErrorCode, message: str) -> None:
        """Refuse an image for the reason `code`, told as `message`."""
        super().__init__(code, message)


@dataclass(frozen=True)
class ImageLimits:
    """What an image may measure, checked before it is decoded.

    Attributes:
        max_bytes: Size of the encoded file, in bytes.
        max_long_side: The larger of width and height, in pixels.
        max_short_side: The smaller of width and height, in pixels.
    """

    max_bytes: int = 25 * 1024 * 1024
    max_long_side: int = 16384
    max_short_side: int = 8192

    def check_bytes(self, count: int) -> None:
        """Refuse an empty file and one of too many bytes.

        Raises:
            ImageError: `image_invalid` or `image_too_large`.
        """
        if count == 0:
            raise ImageError("image_invalid", "the image is empty")
        if count > self.max_bytes:
            raise ImageError("image_too_large", f"the image has {count} bytes; at most {self.max_bytes} are taken")

    def check_size(self, width: int, height: int) -> None:
        """Refuse an image without pixels and one of too many.

        Raises:
            ImageError: `image_invalid` or `image_too_large`.
        """
        if width < 1 or height < 1:
            raise ImageError("image_invalid", "the image has no pixels")
        if max(width, height) > self.max_long_side or min(width, height) > self.max_short_side:
            message = (
                f"the image is {width} pixels wide and {height} high; "
                f"at most {self.max_long_side} on one side and {self.max_short_side} on the other are taken"
            )
            raise ImageError("image_too_large", message)


@dataclass(frozen=True)
class Tiling:
    """How a model wants its images cut.

    Attributes:
        tile_size: Width and height of a tile in pixels, a multiple of 32.
        max_tiles: Most tiles of a grid, the thumbnail not counted.
        use_thumbnail: Whether the whole image, shrunk to a tile, follows a grid of several tiles.
    """

    tile_size: int = 512
    max_tiles: int = 6
    use_thumbnail: bool = True

    @property
    def rows_per_tile(self) -> int:
        """Rows of `patches`, hence image tokens, of a tile."""
        return (self.tile_size // PIXELS_PER_BLOCK_SIDE) ** 2

    @property
    def max_rows(self) -> int:
        """The most rows of `patches` of an image."""
        return self.rows_per_tile * (self.max_tiles + self.use_thumbnail)


@dataclass(frozen=True)
class TiledImage:
    """An image as the vision encoder takes it.

    Attributes:
        patches: Pixels 0 to 255, uint8 (rows per tile · tiles, 3072), in the order of `preprocess.tiles`.
        tiles: Number of tiles, the thumbnail included.
    """

    patches: npt.NDArray[np.uint8]
    tiles: int
