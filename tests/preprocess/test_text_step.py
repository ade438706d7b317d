from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from preprocess.settings import TextSettings
from preprocess.step import RequestError
from preprocess.text_step import TextStep

SETTINGS = TextSettings("", "", 8, 8, 258, None, 0)


@pytest.fixture
def step(byte_level: Path) -> TextStep:
    return TextStep(byte_level.parent, SETTINGS)


def make_request(texts: Sequence[str | bytes], **strings: str) -> dict[str, Any]:
    data = [value.encode() if isinstance(value, str) else value for value in texts]
    return {"text": np.array(data, dtype=np.object_)} | {
        name: np.array([value.encode()], dtype=np.object_) for name, value in strings.items()
    }


def test_requests_of_a_batch_are_answered_apart(step: TextStep, byte_level: Path) -> None:
    first, second = step.process([make_request(["ab", "c"]), make_request(["def"])])
    assert not isinstance(first, RequestError) and not isinstance(second, RequestError)
    reference = Tokenizer.from_file(str(byte_level))
    assert first["input_ids"].tolist() == reference.encode("ab").ids + reference.encode("c").ids
    assert first["sequence_lengths"].tolist() == first["token_counts"].tolist() == [3, 2]
    assert second["input_ids"].tolist() == reference.encode("def").ids
    assert (first["input_ids"].dtype, first["sequence_lengths"].dtype) == (np.int64, np.int32)


def test_a_failing_item_has_no_tokens_and_says_why(step: TextStep) -> None:
    [result] = step.process([make_request(["ab", "far too long", b"\xff", "c"])])
    assert not isinstance(result, RequestError)
    assert result["sequence_lengths"].tolist() == [3, 0, 0, 2]
    codes = [error.decode().partition(":")[0] for error in result["errors"]]
    assert codes == ["", "text_too_long", "text_invalid", ""]


def test_a_request_whose_items_all_fail_fails_without_its_neighbours(step: TextStep) -> None:
    failed, answered = step.process([make_request(["far too long", b"\xff"]), make_request(["a"])])
    assert isinstance(failed, RequestError)
    assert [line.partition(":")[0] for line in str(failed).split("\n")] == ["text_too_long", "text_invalid"]
    assert not isinstance(answered, RequestError) and answered["sequence_lengths"].tolist() == [2]


@pytest.mark.parametrize("strings", [{"input_type": "document"}, {"truncate": "end"}])
def test_an_unknown_choice_fails_the_request(step: TextStep, strings: dict[str, str]) -> None:
    [failed] = step.process([make_request(["a"], **strings)])
    assert isinstance(failed, RequestError) and str(failed).startswith(f"parameter_invalid: {next(iter(strings))}")


def test_token_ids_stand_beside_texts(step: TextStep) -> None:
    request = make_request(["", "ab", ""]) | {
        "token_ids": np.array([65, 66, 67], dtype=np.int64),
        "token_id_counts": np.array([2, 0, 1], dtype=np.int32),
    }
    [result] = step.process([request])
    assert not isinstance(result, RequestError)
    assert result["sequence_lengths"].tolist() == [3, 3, 2]
    assert result["input_ids"].tolist()[:3] == [256, 65, 66] and result["input_ids"].tolist()[-1] == 67


@pytest.mark.parametrize("counts", [[1], [2, 2], [-1, 4], [3, 1]])
def test_token_id_counts_that_do_not_add_up_fail_the_request(step: TextStep, counts: list[int]) -> None:
    request = make_request(["", ""]) | {
        "token_ids": np.array([1, 2, 3], dtype=np.int64),
        "token_id_counts": np.array(counts, dtype=np.int32),
    }
    [failed] = step.process([request])
    assert isinstance(failed, RequestError) and str(failed).startswith("parameter_invalid: token_id_counts")


def test_an_embedder_of_images_gets_one_unread_row(byte_level: Path) -> None:
    step = TextStep(byte_level.parent, replace(SETTINGS, image_token_id=257, image_embeds_dim=4))
    [result] = step.process([make_request(["a", "b"])])
    assert not isinstance(result, RequestError)
    assert result["image_rows"].tolist() == [1, 0]
    assert result["image_embeds"].shape == (1, 4) and np.isnan(result["image_embeds"]).all()
