"""Broken pictures, literal placeholders and truncation, through the ensembles of the multimodal model."""

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.end_to_end.conftest import TINY_CHECKPOINT
from tests.triton_requests import infer

pytestmark = pytest.mark.triton

IMAGE = "tiny_checkpoint_image"
TEXT = "tiny_checkpoint_text"
PICTURE = (TINY_CHECKPOINT / "images" / "0.png").read_bytes()
LIMIT = 10240


def test_a_broken_picture_fails_alone(triton: InferenceServerClient) -> None:
    truncated, other = PICTURE[: len(PICTURE) // 2], b"%PDF-1.7"
    result = infer(triton, IMAGE, image=[PICTURE, truncated, PICTURE, other], text=["a", "b", "", ""])
    codes = [error.decode().partition(":")[0] for error in result["errors"]]
    assert codes == ["", "image_invalid", "", "image_unsupported"]
    assert np.isnan(result["embeddings"][[1, 3]]).all()
    assert result["tile_counts"].tolist()[1::2] == result["token_counts"].tolist()[1::2] == [0, 0]
    whole = infer(triton, IMAGE, image=[PICTURE, PICTURE], text=["a", ""])
    np.testing.assert_allclose(result["embeddings"][[0, 2]], whole["embeddings"], atol=1e-6)


def test_a_request_of_broken_pictures_is_refused(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="image_unsupported"):
        infer(triton, IMAGE, image=[b"GARBAGE"])


@pytest.mark.parametrize("tensors", [{"patches": np.zeros((0, 3072), np.uint8)}])
def test_an_empty_ragged_tensor_is_refused(triton: InferenceServerClient, tensors: dict[str, np.ndarray]) -> None:
    """On the native backend it would corrupt other requests of its batch: nobody may get used to sending one."""
    with pytest.raises(InferenceServerException, match="no rows"):
        infer(triton, "tiny_checkpoint_vision_encoder", **tensors)


@pytest.mark.parametrize("literal", ["<IMG_CONTEXT>", "<image>", "<img>", "</img>", "<|begin_of_text|>"])
def test_a_literal_placeholder_is_ordinary_text(triton: InferenceServerClient, literal: str) -> None:
    """Beside a picture the image rows stay bound to the picture; alone nothing waits for a picture."""
    plain, placed = infer(triton, IMAGE, image=[PICTURE, PICTURE], text=["ab", f"a{literal}b"])["embeddings"]
    assert np.isfinite(placed).all() and float(plain @ placed) > 0.9
    counts = infer(triton, IMAGE, image=[PICTURE], text=[literal * 3])
    assert counts["image_token_counts"].tolist() == [256 * int(counts["tile_counts"][0])]
    alone = infer(triton, TEXT, text=[literal, literal * 2])
    assert np.isfinite(alone["embeddings"]).all()
    assert alone["token_counts"][1] > alone["token_counts"][0] + 2


def test_text_is_cut_and_image_tokens_are_not(triton: InferenceServerClient) -> None:
    long_text = "word " * LIMIT
    for truncate in ("END", "START"):
        result = infer(triton, IMAGE, image=[PICTURE], text=[long_text], truncate=[truncate])
        assert result["token_counts"].tolist() == [LIMIT]
        assert result["image_token_counts"].tolist() == [256 * int(result["tile_counts"][0])]
        assert infer(triton, TEXT, text=[long_text], truncate=[truncate])["token_counts"].tolist() == [LIMIT]
    with pytest.raises(InferenceServerException, match=f"text_too_long: [0-9]+ tokens exceed the limit of {LIMIT}"):
        infer(triton, IMAGE, image=[PICTURE], text=[long_text])
