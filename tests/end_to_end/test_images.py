"""Invalid images, literal placeholders and truncation, through the ensembles of the multimodal model."""

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.end_to_end.samples import read_image
from tests.triton_requests import infer

pytestmark = pytest.mark.triton

IMAGE_ENSEMBLE = "tiny_checkpoint_image"
TEXT_ENSEMBLE = "tiny_checkpoint_text"
IMAGE = read_image(0)
MAX_TOKENS = 10240


def test_an_invalid_image_fails_alone(triton: InferenceServerClient) -> None:
    truncated, other = IMAGE[: len(IMAGE) // 2], b"%PDF-1.7"
    result = infer(triton, IMAGE_ENSEMBLE, image=[IMAGE, truncated, IMAGE, other], text=["a", "b", "", ""])
    codes = [error.decode().partition(":")[0] for error in result["errors"]]
    assert codes == ["", "image_invalid", "", "image_unsupported"]
    assert np.isnan(result["embeddings"][[1, 3]]).all()
    assert result["tile_counts"].tolist()[1::2] == result["token_counts"].tolist()[1::2] == [0, 0]
    whole = infer(triton, IMAGE_ENSEMBLE, image=[IMAGE, IMAGE], text=["a", ""])
    np.testing.assert_allclose(result["embeddings"][[0, 2]], whole["embeddings"], atol=1e-6)


def test_a_request_with_only_invalid_images_is_refused(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="image_unsupported"):
        infer(triton, IMAGE_ENSEMBLE, image=[b"GARBAGE"])


def test_an_empty_ragged_tensor_is_refused(triton: InferenceServerClient) -> None:
    """On the native backend it would corrupt other requests of its batch."""
    with pytest.raises(InferenceServerException, match="no rows"):
        infer(triton, "tiny_checkpoint_vision_encoder", patches=np.zeros((0, 3072), np.uint8))


@pytest.mark.parametrize("literal", ["<IMG_CONTEXT>", "<image>", "<img>", "</img>", "<|begin_of_text|>"])
def test_a_literal_placeholder_is_plain_text(triton: InferenceServerClient, literal: str) -> None:
    """A placeholder in the text does not take image rows, and does not require an image."""
    plain, placed = infer(triton, IMAGE_ENSEMBLE, image=[IMAGE, IMAGE], text=["ab", f"a{literal}b"])["embeddings"]
    assert np.isfinite(placed).all() and float(plain @ placed) > 0.9
    counts = infer(triton, IMAGE_ENSEMBLE, image=[IMAGE], text=[literal * 3])
    assert counts["image_token_counts"].tolist() == [256 * int(counts["tile_counts"][0])]
    alone = infer(triton, TEXT_ENSEMBLE, text=[literal, literal * 2])
    assert np.isfinite(alone["embeddings"]).all()
    assert alone["token_counts"][1] > alone["token_counts"][0] + 2


def test_truncation_cuts_text_and_keeps_image_tokens(triton: InferenceServerClient) -> None:
    long_text = "word " * MAX_TOKENS
    for truncate in ("END", "START"):
        result = infer(triton, IMAGE_ENSEMBLE, image=[IMAGE], text=[long_text], truncate=[truncate])
        assert result["token_counts"].tolist() == [MAX_TOKENS]
        assert result["image_token_counts"].tolist() == [256 * int(result["tile_counts"][0])]
        assert infer(triton, TEXT_ENSEMBLE, text=[long_text], truncate=[truncate])["token_counts"].tolist() == [
            MAX_TOKENS
        ]
    with pytest.raises(
        InferenceServerException, match=f"text_too_long: [0-9]+ tokens exceed the limit of {MAX_TOKENS}"
    ):
        infer(triton, IMAGE_ENSEMBLE, image=[IMAGE], text=[long_text])
