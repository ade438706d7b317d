"""What the preprocessing of dual encoders differs in: images without tokens, and texts with padding."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from preprocess.items import RequestError
from preprocess.steps import DecodeStep, TextStep, load_step
from tests.preprocess.test_steps import SETTINGS, SQUARE, make_image_request, make_request, process, read_codes, run


@pytest.fixture
def tower_step(byte_level: Path) -> Iterator[DecodeStep]:
    """A step for an image tower that takes 64x64 pixels in four patches."""
    settings = {"max_query_tokens": "8", "max_passage_tokens": "8", "vocab_size": "258", "modality": "image"}
    resizing = {"image_size": "64", "patch_size": "32", "resample": "bicubic", "decode_workers": "1"}
    step = load_step(byte_level.parent / "without-tokenizer", settings | resizing)
    assert isinstance(step, DecodeStep)
    yield step
    step.close()


def test_images_for_a_tower_have_patches_and_no_tokens(tower_step: DecodeStep) -> None:
    [result] = process(tower_step, make_image_request([SQUARE, b"GARBAGE", SQUARE]))
    assert set(result) == {
        "patches", "image_rows", "token_counts", "untruncated_token_counts", "image_token_counts", "tile_counts",
        "page_counts", "errors",
    }  # fmt: skip
    assert result["patches"].shape == (8, 32 * 32 * 3)
    for name in ("image_rows", "token_counts", "untruncated_token_counts", "image_token_counts"):
        assert result[name].tolist() == [4, 0, 4] and result[name].dtype == np.int32
    assert result["tile_counts"].tolist() == [1, 0, 1]
    assert read_codes(result) == ["", "image_unsupported", ""]


def test_a_request_without_a_valid_image_for_a_tower_fails(tower_step: DecodeStep) -> None:
    [failed] = run(tower_step, [make_image_request([b"GARBAGE", b""])])
    assert isinstance(failed, RequestError)
    assert [line.partition(":")[0] for line in str(failed).split("\n")] == ["image_unsupported", "image_invalid"]


def test_padding_reaches_the_embedder_and_is_not_counted(byte_level: Path) -> None:
    padded = Tokenizer.from_file(str(byte_level))
    padded.enable_padding(length=6, pad_id=0, pad_token="!")
    padded.save(str(byte_level))
    request = make_request(["ab", b"\xff", "far too long"], truncate="END")
    [result] = process(TextStep(byte_level.parent, SETTINGS), request)
    assert result["sequence_lengths"].tolist() == [6, 0, 8]
    assert result["token_counts"].tolist() == [3, 0, 8]
    assert result["untruncated_token_counts"].tolist() == [3, 0, 13]
    assert result["input_ids"].tolist()[:6] == padded.encode("ab").ids
    assert result["input_ids"].tolist()[3:6] == [0, 0, 0]
