"""What a model is not asked to embed."""

from dataclasses import replace

import pytest

from gateway.core.checks import check_modality
from gateway.errors import InvalidItemError
from gateway.types import ImageItem, TextImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL

DUAL_ENCODER = replace(IMAGE_MODEL, takes_text_with_images=False)


def test_a_dual_encoder_takes_no_text_beside_an_image() -> None:
    with pytest.raises(InvalidItemError, match=r"input\[3\] has an image and a text, .* send them as two items"):
        check_modality(3, TextImageItem("a", b"image"), DUAL_ENCODER, "passage", False)
    for item in (TextItem("a"), ImageItem(b"image")):
        check_modality(3, item, DUAL_ENCODER, "passage", False)
    check_modality(3, TextImageItem("a", b"image"), IMAGE_MODEL, "passage", False)
