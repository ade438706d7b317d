"""Scans of JPEGs, counted before anything is decoded."""

import pytest

from preprocess.decode import decode_image
from preprocess.items import ImageError
from preprocess.jpeg import MAX_SCANS, count_scans
from preprocess.settings import ImageLimits
from tests.preprocess.image_files import draw_scene, encode, repeat_last_scan

SCENE = draw_scene(80, 60)
PROGRESSIVE = encode(SCENE, "JPEG", progressive=True)


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (encode(SCENE, "JPEG"), 1),
        (encode(SCENE, "JPEG", restart_marker_blocks=1), 1),
        (PROGRESSIVE, 10),
        (encode(SCENE, "JPEG", progressive=True, restart_marker_blocks=1), 10),
        (encode(SCENE.convert("L"), "JPEG", progressive=True), 6),
        (repeat_last_scan(PROGRESSIVE, 30), 40),
        (encode(SCENE, "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 500), 1),
        (encode(SCENE, "JPEG") + b"\xff\xda" * 500, 1),
        (PROGRESSIVE[:-2], 10),
        (b"\xff\xd8\xff", 1),
    ],
    ids=[
        "baseline",
        "restarts",
        "progressive",
        "progressive restarts",
        "grey",
        "repeated",
        "thumbnail",
        "trailer",
        "truncated",
        "empty",
    ],
)
def test_scans_are_counted(data: bytes, scans: int) -> None:
    assert count_scans(data) == scans


def test_a_jpeg_with_as_many_scans_as_allowed_is_decoded() -> None:
    data = repeat_last_scan(PROGRESSIVE, MAX_SCANS - 10)
    assert decode_image(data, ImageLimits()).tobytes() == decode_image(PROGRESSIVE, ImageLimits()).tobytes()


def test_a_jpeg_with_more_scans_is_refused() -> None:
    with pytest.raises(ImageError, match="image_invalid: the image is a JPEG of more than 100 scans"):
        decode_image(repeat_last_scan(PROGRESSIVE, MAX_SCANS - 9), ImageLimits())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 25_000_000 + b"\xff\xda" * 2,
        b"\xff\xd8\xff\xda\x00\x00\xff\xda" + b"\xff\x01" * 12_000_000,
    ],
    ids=["fill bytes", "markers"],
)
def test_markers_without_end_cost_little(data: bytes) -> None:
    """With a quadratic search, each of these takes hours."""
    try:
        count_scans(data)
    except ImageError as error:
        assert error.code == "image_invalid"
