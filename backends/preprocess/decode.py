"""Encoded images to upright RGB pixels, for PNG, JPEG, WebP and GIF."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from preprocess.items import ImageError
from preprocess.jpeg import count_scans
from preprocess.settings import ImageLimits

ImageFormat = Literal["PNG", "JPEG", "WEBP", "GIF"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_ORIENTATION_TAG = 0x0112

WEBP_WEIGHT = 4
"""A pixel of a WebP takes up to 60 ns: its decoder goes through canvases for animations."""
SCANS_PER_WEIGHT = 8
"""A scan of a JPEG takes up to 1 ns per pixel, even if its data is missing; everything else takes about 10 ns."""

# The plugins are called directly: `Image.open` would also accept MPO as JPEG, and load every plugin to find WebP.
_DECODERS: dict[ImageFormat, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
}

# The transposition that puts an image of each EXIF orientation upright (EXIF 2.32, section 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, limits: ImageLimits, begin: Callable[[int], None] = lambda cost: None) -> Image.Image:
    """Decode the first frame to RGB: upright by EXIF, transparency over white, 16 bits scaled to 8.

    JPEGs with four components are read as inverted CMYK, Adobe's convention, whether marked so or not, as browsers do.
    Colour profiles are ignored, as in the model's reference.

    Args:
        data: The encoded file. Its first bytes determine the format.
        limits: Checked against the headers, before any pixel is decoded.
        begin: Called with what decoding costs, as `estimate_cost` has it, before any pixel is decoded; what it raises
            is passed on.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: The image is damaged, too large or of another format.
    """
    limits.check_bytes(len(data))
    image_format = read_format(data)
    scans = count_scans(data) if image_format == "JPEG" else 1

    def admit(width: int, height: int) -> None:
        limits.check_size(width, height)
        begin(estimate_cost(image_format, width, height, scans))

    canvas = read_canvas(data, image_format)
    if canvas is not None:
        admit(*canvas)
    if image_format == "PNG":
        check_png_chunks(data)
    with decoder_errors_translated(image_format):
        image = _DECODERS[image_format](BytesIO(data))
    admit(*image.size)
    with decoder_errors_translated(image_format):
        return _load(image, data, image_format)


def estimate_cost(image_format: ImageFormat, width: int, height: int, scans: int = 1) -> int:
    """Return how long decoding and tiling an image takes, in pixels of a PNG, each of which takes about 15 ns."""
    weight = WEBP_WEIGHT if image_format == "WEBP" else 1 + scans // SCANS_PER_WEIGHT
    return width * height * weight


@contextmanager
def decoder_errors_translated(image_format: ImageFormat) -> Iterator[None]:
    """Turn whatever Pillow's decoders raise inside into an error for the client, and silence their warnings.

    Raises:
        ImageError: The image is damaged, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError:
        raise ImageError("image_too_large", "the image has too many pixels") from None
    except MemoryError:
        raise ImageError("image_invalid", "decoding the image takes too much memory") from None
    except Exception:  # OSError, SyntaxError, struct.error, zlib.error ...
        raise ImageError("image_invalid", f"the image is a damaged {image_format}") from None


def _load(image: ImageFile, data: bytes, image_format: ImageFormat) -> Image.Image:
    image.load()
    if image_format == "PNG" and image.mode != "P" and "transparency" in image.info:
        image.info["transparency"] = _match_depth(image.info["transparency"], image.mode, png_bits=data[24])
    upright = _UPRIGHT.get(_read_exif_orientation(image))
    rgb = _to_rgb(image)
    return rgb if upright is None else rgb.transpose(upright)


def _read_exif_orientation(image: ImageFile) -> int:
    exif = image.info.get("exif")
    return read_orientation(exif) if isinstance(exif, bytes) else 1


def _match_depth(key: int | tuple[int, ...], mode: str, png_bits: int) -> int | tuple[int, ...]:
    """Scale a PNG's transparent colour to the depth of Pillow's pixels; Pillow leaves it at the depth of the file.

    Pillow widens 2-bit and 4-bit grey to 8 bits, keeps the high byte of 16-bit colours, and keeps 16-bit grey as it is.
    For 1-bit grey it has scaled the key already.
    """
    if isinstance(key, tuple):
        return tuple(value >> 8 if png_bits == 16 else value & 0xFF for value in key)
    if mode == "L":
        highest = (1 << png_bits) - 1
        return (key & highest) * 255 // highest
    return key


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        return _narrow_grey(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _narrow_grey(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, as Pillow does for 16-bit colours; its own conversion of grey clips at 255."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def read_format(data: bytes) -> ImageFormat:
    """Detect the format by the first bytes.

    Raises:
        ImageError: `image_unsupported`, unless it is PNG, JPEG, WebP or GIF.
    """
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    raise ImageError("image_unsupported", "the image is not a PNG, JPEG, WebP or GIF")


def read_canvas(data: bytes, image_format: ImageFormat) -> tuple[int, int] | None:
    """Read (width, height) in pixels for formats whose decoder allocates or parses much before it reports them.

    Returns:
        None for JPEG and GIF, whose decoders report the size cheaply, and for a malformed header.
    """
    if image_format == "PNG" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if image_format == "WEBP":
        return _read_webp_canvas(data)
    return None


def _read_webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Read the canvas size of the three kinds of WebP (RFC 9649, sections 2.5 to 2.7)."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def check_png_chunks(data: bytes) -> None:
    """Check that all chunks up to IEND are complete and match their checksums: Pillow ignores those of IDAT.

    Raises:
        ImageError: `image_invalid`.
    """
    view = memoryview(data)
    start = len(PNG_SIGNATURE)
    while start + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, start)
        end = start + 8 + length
        if end + 4 > len(view):
            break
        if zlib.crc32(view[start + 4 : end]) != struct.unpack_from(">I", view, end)[0]:
            raise ImageError("image_invalid", "the image is damaged: a PNG checksum does not match")
        if data.startswith(b"IEND", start + 4):
            return
        start = end + 4
    raise ImageError("image_invalid", "the image is truncated: the PNG has no end")


def read_orientation(exif: bytes) -> int:
    """Return the orientation (1 to 8) from EXIF bytes, 1 (upright) if it is missing or malformed.

    Only the entries of the first directory are read, and no values they point to, so hostile metadata costs nothing.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    endian = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if endian is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{endian}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{endian}H", tiff, directory)
    last_entry = min(directory + 2 + 12 * count, len(tiff)) - 12
    for entry in range(directory + 2, last_entry + 1, 12):
        tag, _type, _count, value = struct.unpack_from(f"{endian}HHIH", tiff, entry)
        if tag == EXIF_ORIENTATION_TAG:
            return value if 1 <= value <= 8 else 1
    return 1
