"""What an image's bytes say of themselves, read before any decoder sees them."""

from __future__ import annotations

import struct
import zlib
from typing import Literal

from preprocess.images import ImageError

ImageFormat = Literal["PNG", "JPEG", "WEBP", "GIF"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112


def read_format(data: bytes) -> ImageFormat:
    """Tell the format by the first bytes; no label is asked.

    Raises:
        ImageError: `image_unsupported` for anything but PNG, JPEG, WebP and GIF.
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
    """Read (width, height) in pixels where the decoder allocates or parses much before it says them.

    JPEG and GIF say their size cheaply; for them, and for headers not understood, the answer is None.
    """
    if image_format == "PNG" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if image_format == "WEBP":
        return _read_webp_canvas(data)
    return None


def _read_webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Read the canvas of the three kinds of WebP (RFC 9649, sections 2.5 to 2.7)."""
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
    """Check that every chunk up to IEND is there and as it was written: Pillow looks at no IDAT checksum.

    Raises:
        ImageError: `image_invalid` for a missing chunk end or a wrong checksum.
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
    raise ImageError("image_invalid", "the image is cut off: the PNG has no end")


def read_orientation(exif: bytes) -> int:
    """Find the orientation (1 to 8) in EXIF bytes; 1, upright, where they hold none or make no sense.

    Only the first directory's entries are looked at, and none of the values they point to, so that hostile metadata
    costs nothing.
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
        if tag == _ORIENTATION_TAG:
            return value if 1 <= value <= 8 else 1
    return 1
