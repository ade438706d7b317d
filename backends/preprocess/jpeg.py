"""The scans of a JPEG, counted from its markers: a progressive image is decoded anew for each of them."""

from __future__ import annotations

import re
import struct

from preprocess.items import ImageError

MAX_SCANS = 100
"""libjpeg writes 10 scans, optimisers somewhat more; a hostile file of 85 KB has 2000."""

MAX_SEGMENTS = 10_000

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In the data of a scan, 0xFF stands before 0x00 and restart markers (0xD0 to 0xD7) only (ITU-T T.81, B.1.1)."""

NO_LENGTH = frozenset({0x01, 0xD8})
"""Markers without a segment: TEM and SOI."""


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG's first image.

    Args:
        data: The file.

    Raises:
        ImageError: `image_invalid`: there are too many, or the file consists of little else than markers.
    """
    if data.count(bytes((0xFF, START_OF_SCAN))) <= 1:  # also counts what only looks like it, as in thumbnails
        return 1
    scans = 0
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, position)
        if found is None:
            return scans
        marker = data[found.end() - 1]
        position = found.end()
        if marker == END_OF_IMAGE:
            return scans
        if marker == START_OF_SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageError("image_invalid", f"the image is a JPEG of more than {MAX_SCANS} scans")
        if marker not in NO_LENGTH and position + 2 <= len(data):
            (length,) = struct.unpack_from(">H", data, position)
            position += length
    raise ImageError("image_invalid", "the image is a damaged JPEG")
