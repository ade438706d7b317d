"""Encoded images to upright RGB pixels, for PNG, JPEG, WebP and GIF."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from preprocess.headers import ImageFormat, check_png_chunks, read_canvas, read_format, read_orientation
from preprocess.images import ImageError, ImageLimits

# The plugins are called by their classes: `Image.open` would also reach MPO through JPEG, and load all others for WebP.
_DECODERS: dict[ImageFormat, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
}

# EXIF 2.32, 4.6.4: what puts an image of that orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode the first frame to RGB: upright by EXIF, transparency over white, 16 bits scaled to 8.

    JPEGs of four components are read as inverted CMYK, Adobe's convention, marked so or not: as browsers do. Colour
    profiles are not applied: the model's reference does not.

    Args:
        data: The file's bytes; the format is told by them.
        limits: Checked on the headers, before any pixel is decoded.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: For whatever is wrong with the image.
    """
    limits.check_bytes(len(data))
    image_format = read_format(data)
    canvas = read_canvas(data, image_format)
    if canvas is not None:
        limits.check_size(*canvas)
    if image_format == "PNG":
        check_png_chunks(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, image_format, limits)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError("image_too_large", "the image has too many pixels") from None
    except MemoryError:
        raise ImageError("image_invalid", "decoding the image takes too much memory") from None
    except Exception:  # Pillow raises no closed set: OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise ImageError("image_invalid", f"the image is a damaged {image_format}") from None


def _decode(data: bytes, image_format: ImageFormat, limits: ImageLimits) -> Image.Image:
    image = _DECODERS[image_format](BytesIO(data))
    limits.check_size(*image.size)
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
    """Bring a PNG's transparent colour to the depth of Pillow's pixels; Pillow leaves it at the file's.

    Pillow widens grey of 2 and 4 bits to 8, keeps the high byte of 16-bit colours, and keeps 16-bit grey whole; of
    1-bit grey it has scaled the key itself.
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
    """Keep the high byte of 16-bit grey, as Pillow does for 16-bit colours; its own conversion clips at 255."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)
