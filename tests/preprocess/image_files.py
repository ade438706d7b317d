"""Image files for the tests: ordinary ones written by Pillow, the others byte by byte."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""PNG colour types."""

Chunks = list[tuple[bytes, bytes]]


def draw_scene(width: int, height: int) -> Image.Image:
    """Draw a smooth RGB image without any symmetry, which survives JPEG well."""
    x, y = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    channels = [220 * x + 20 * y, 200 * y * y + 30 + 0 * x, 120 + 100 * np.sin(3 * x) * y]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Encode an image with Pillow."""
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def encode_chunk(kind: bytes, payload: bytes) -> bytes:
    """Encode a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def encode_png(
    size: tuple[int, int],
    bits: int,
    colour: int,
    lines: list[bytes],
    before: Chunks | None = None,
    after: Chunks | None = None,
) -> bytes:
    """Encode a PNG from lines of samples, with further chunks before and after its pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + line for line in lines))
    chunks = [(b"IHDR", header), *(before or []), (b"IDAT", pixels), *(after or []), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(encode_chunk(kind, payload) for kind, payload in chunks)


def encode_16_bit(samples: np.ndarray) -> list[bytes]:
    """Turn 16-bit samples (height, values) into lines for `encode_png`."""
    return [line.astype(">u2").tobytes() for line in samples]


def repeat_last_scan(jpeg: bytes, times: int) -> bytes:
    """Repeat the last scan of a JPEG, which changes no pixel if it is one of all zeros."""
    last = jpeg.rindex(b"\xff\xda")
    (length,) = struct.unpack_from(">H", jpeg, last + 2)
    empty_scan = jpeg[last : last + 2 + length]  # its missing data counts as zeros
    return jpeg[:-2] + empty_scan * times + jpeg[-2:]
