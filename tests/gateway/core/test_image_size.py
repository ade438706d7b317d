"""Sizes of images, read from their headers without decoding."""

import random
import struct
from io import BytesIO

import pytest
from PIL import Image

from gateway.core.image_size import ImageSize, read_image_size

SIZES = [(1, 1), (640, 480), (3, 5000), (16000, 2)]


def encode(size: tuple[int, int], kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "mode", "options", "weight"),
    [
        ("PNG", "RGB", {}, 1),
        ("PNG", "P", {}, 1),
        ("JPEG", "RGB", {}, 1),
        ("JPEG", "CMYK", {"exif": b"Exif\0\0" + b"\xff\xc0" * 9}, 1),
        ("JPEG", "RGB", {"progressive": True}, 2),
        ("WEBP", "RGB", {}, 4),
        ("WEBP", "RGB", {"lossless": True}, 4),
        ("WEBP", "RGBA", {"exif": b"Exif\0\0"}, 4),
        ("GIF", "P", {}, 1),
        ("GIF", "P", {"comment": b"a comment " * 90}, 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_sizes_are_those_that_pillow_reads(
    size: tuple[int, int], kind: str, mode: str, options: dict[str, object], weight: int
) -> None:
    assert read_image_size(encode(size, kind, mode, **options)) == ImageSize(*size, weight)


def test_a_gif_is_as_large_as_its_first_frame() -> None:
    gif = bytearray(encode((4, 3), "GIF", "P"))
    gif[6:10] = struct.pack("<HH", 2, 2)  # the screen, in which the frame has no room
    with Image.open(BytesIO(gif)) as opened:
        assert opened.size == (4, 3)
    assert read_image_size(bytes(gif)) == ImageSize(4, 3)


def test_scans_of_a_jpeg_add_to_its_cost() -> None:
    progressive = encode((100, 100), "JPEG", progressive=True)
    attack = read_image_size(progressive[:-2] + b"\xff\xda\x00\x02" * 2000)
    assert attack is not None
    assert (attack.pixels, attack.decode_pixels) == (10_000, 130_000)


@pytest.mark.parametrize("file", [b"", b"GIF89a", b"<svg/>", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"])
def test_a_file_without_a_header_has_no_size(file: bytes) -> None:
    assert read_image_size(file) is None


@pytest.mark.parametrize(
    "file",
    [
        b"\xff\xd8" + b"\xff" * 10_000_000,
        b"\xff\xd8" + b"\xff\x01" * 5_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 2_000_000,
        b"GIF89a\1\0\1\0\0\0\0\x21\xfe" + b"\1\1" * 5_000_000,
    ],
    ids=["fill bytes", "markers", "empty segments", "blocks"],
)
def test_headers_without_end_are_given_up(file: bytes) -> None:
    assert read_image_size(file) in (None, ImageSize(1, 1))


def test_damaged_headers_raise_nothing() -> None:
    """Every cut, and random changes of some bytes."""
    chance = random.Random(1)
    for file in (encode((9, 9), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")):
        for length in range(min(len(file), 700)):
            read_image_size(file[:length])
        for _ in range(2000):
            damaged = bytearray(file)
            for _ in range(4):
                damaged[chance.randrange(8, min(len(file), 200))] = chance.randrange(256)
            read_image_size(bytes(damaged))
