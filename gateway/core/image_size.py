"""The size of an image, read from its header: what decoding it will cost, before anything is decoded.

Headers may lie, and an unreadable one is no error here: the decoder checks what it decodes. So nothing is allocated,
and no more than a bounded number of markers is looked at.
"""

import re
import struct
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GIF_SIGNATURES = (b"GIF87a", b"GIF89a")

WEBP_WEIGHT = 4
SCANS_PER_WEIGHT = 8
MAX_SCANS = 100
"""As the preprocessing step weighs them (`docs/contract.md`); it refuses JPEGs with more scans."""

SLOW_PIXELS = 16 * 1024 * 1024
"""An image that costs more to decode takes more than a quarter of a second."""

MAX_SEGMENTS = 1000
"""Of a JPEG, or blocks of a GIF, that are looked at."""

JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header, SOF0 to SOF15 (ITU-T T.81, table B.1)."""
JPEG_START_OF_SCAN = b"\xff\xda"
JPEG_WITHOUT_SEGMENT = frozenset({0x01, 0xD8})

GIF_IMAGE, GIF_EXTENSION = 0x2C, 0x21


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What an image's header says.

    Attributes:
        width: In pixels.
        height: In pixels.
        weight: What decoding a pixel costs, where 1 stands for a pixel of a PNG, about 15 ns.
    """

    width: int
    height: int
    weight: int = 1

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def decode_pixels(self) -> int:
        """Cost of decoding, in pixels of a PNG."""
        return self.pixels * self.weight


def read_image_size(file: bytes) -> ImageSize | None:
    """Read the size of a PNG, JPEG, WebP or GIF.

    Returns:
        None for other files, and for a header that is malformed or beyond the markers that are looked at.
    """
    try:
        if file.startswith(PNG_SIGNATURE):
            return ImageSize(*struct.unpack_from(">II", file, 16))
        if file.startswith(b"\xff\xd8\xff"):
            return read_jpeg_size(file)
        if file.startswith(b"RIFF") and file[8:12] == b"WEBP":
            return read_webp_size(file)
        if file.startswith(GIF_SIGNATURES):
            return read_gif_size(file)
    except (struct.error, IndexError):  # the file ends before its header does
        pass
    return None


def read_jpeg_size(file: bytes) -> ImageSize | None:
    """Find the frame header, and count what may be scans: too many rather than too few."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = JPEG_MARKER.search(file, position)
        if found is None:
            return None
        marker, position = file[found.end() - 1], found.end()
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", file, position + 3)
            scans = min(file.count(JPEG_START_OF_SCAN, position), MAX_SCANS)
            return ImageSize(width, height, 1 + scans // SCANS_PER_WEIGHT)
        if marker not in JPEG_WITHOUT_SEGMENT:
            position += struct.unpack_from(">H", file, position)[0]
    return None


def read_webp_size(file: bytes) -> ImageSize | None:
    """Read the canvas size of the three kinds of WebP (RFC 9649, sections 2.5 to 2.7)."""
    match file[12:16]:
        case b"VP8X":
            width, height = struct.unpack("<II", file[24:27] + b"\0" + file[27:30] + b"\0")
            return ImageSize(width + 1, height + 1, WEBP_WEIGHT)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", file, 26)
            return ImageSize(width & 0x3FFF, height & 0x3FFF, WEBP_WEIGHT)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", file, 21)
            return ImageSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, WEBP_WEIGHT)
    return None


def read_gif_size(file: bytes) -> ImageSize:
    """Read the size of the screen, extended by the first frame if that is found: decoders show all of it."""
    width, height, flags = struct.unpack_from("<HHB", file, 6)
    colors = 2 << (flags & 7) if flags & 0x80 else 0
    frame = find_gif_frame(file, 13 + 3 * colors)
    if frame is None:
        return ImageSize(width, height)
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", file, frame)
    return ImageSize(max(width, left + frame_width), max(height, top + frame_height))


def find_gif_frame(file: bytes, position: int) -> int | None:
    """Return where the first frame's descriptor begins, behind the extensions that stand before it."""
    in_extension = False
    for _ in range(MAX_SEGMENTS):
        value = file[position]
        if in_extension:  # made of blocks that begin with their length; an empty one is the last
            position += 1 + value
            in_extension = value > 0
        elif value == GIF_EXTENSION:
            position += 2
            in_extension = True
        else:
            return position + 1 if value == GIF_IMAGE else None
    return None
