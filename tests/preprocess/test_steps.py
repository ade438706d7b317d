import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from preprocess.items import ExpiredError, RequestError, Tensors
from preprocess.settings import ImageSettings, TextSettings
from preprocess.steps import DecodeStep, ImageStep, TextStep
from tests.pdf_files import fill, make_pdf
from tests.preprocess.image_files import draw_scene, encode
from tests.service import PROJECT

SETTINGS = TextSettings("", "", 8, 8, 258, None, 0)
IMAGE_TOKEN_ID = 257
IMAGE_PREFIX, IMAGE_SUFFIX = "<img>", "</img> "


@pytest.fixture
def step(byte_level: Path) -> TextStep:
    return TextStep(byte_level.parent, SETTINGS)


@pytest.fixture
def image_step(byte_level: Path) -> Iterator[ImageStep]:
    """A step with tiles of 32x32 pixels, one image token each: an image has one tile, or two and a thumbnail."""
    text = replace(SETTINGS, max_passage_tokens=30, image_token_id=IMAGE_TOKEN_ID, image_embeds_dim=4)
    step = ImageStep(byte_level.parent, text, read_image_settings())
    yield step
    step.close()


def read_image_settings(**parameters: str) -> ImageSettings:
    defaults = {"image_prefix": IMAGE_PREFIX, "image_suffix": IMAGE_SUFFIX, "decode_workers": "1"}
    tiling = {"tile_size": "32", "max_tiles": "2", "use_thumbnail": "true"}
    return ImageSettings.read(defaults | tiling | parameters)


def make_request(texts: Sequence[str | bytes], **strings: str) -> dict[str, Any]:
    data = [value.encode() if isinstance(value, str) else value for value in texts]
    return {"text": np.array(data, dtype=np.object_)} | {
        name: np.array([value.encode()], dtype=np.object_) for name, value in strings.items()
    }


def run(step: TextStep | DecodeStep, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
    if isinstance(step, TextStep):
        return step.process(requests)
    return [future.result() for future in [step.submit(request) for request in requests]]


def process(step: TextStep | DecodeStep, *requests: Tensors) -> list[Tensors]:
    """Return the results of requests that must not fail."""
    results: list[Tensors] = []
    for result in run(step, requests):
        assert not isinstance(result, RequestError)
        results.append(result)
    return results


def read_codes(result: Tensors) -> list[str]:
    return [error.decode().partition(":")[0] for error in result["errors"]]


def test_requests_of_a_batch_get_separate_results(step: TextStep, byte_level: Path) -> None:
    first, second = process(step, make_request(["ab", "c"]), make_request(["def"]))
    reference = Tokenizer.from_file(str(byte_level))
    assert first["input_ids"].tolist() == reference.encode("ab").ids + reference.encode("c").ids
    assert first["sequence_lengths"].tolist() == first["token_counts"].tolist() == [3, 2]
    assert first["untruncated_token_counts"].tolist() == [3, 2]
    assert first["untruncated_token_counts"].dtype == np.int32
    assert second["input_ids"].tolist() == reference.encode("def").ids
    assert first["input_ids"].dtype == np.int64
    assert first["sequence_lengths"].dtype == np.int32


def test_a_failed_item_has_an_error_and_no_tokens(step: TextStep) -> None:
    [result] = process(step, make_request(["ab", "far too long", b"\xff", "c"]))
    assert result["sequence_lengths"].tolist() == [3, 0, 0, 2]
    assert result["untruncated_token_counts"].tolist() == [3, 0, 0, 2]
    assert read_codes(result) == ["", "text_too_long", "text_invalid", ""]


def test_tokens_before_truncation_are_reported(step: TextStep) -> None:
    [result] = process(step, make_request(["ab", "far too long", "c"], truncate="END"))
    assert result["token_counts"].tolist() == [3, 8, 2]
    assert result["untruncated_token_counts"].tolist() == [3, 13, 2]


def test_a_request_whose_items_all_fail_fails_without_its_neighbours(step: TextStep) -> None:
    failed, valid = step.process([make_request(["far too long", b"\xff"]), make_request(["a"])])
    assert isinstance(failed, RequestError)
    assert [line.partition(":")[0] for line in str(failed).split("\n")] == ["text_too_long", "text_invalid"]
    assert not isinstance(valid, RequestError) and valid["sequence_lengths"].tolist() == [2]


@pytest.mark.parametrize("strings", [{"input_type": "document"}, {"truncate": "end"}, {"token_id_policy": "refuse"}])
def test_an_unknown_choice_fails_the_request(step: TextStep, strings: dict[str, str]) -> None:
    [failed] = step.process([make_request(["a"], **strings)])
    assert isinstance(failed, RequestError) and str(failed).startswith(f"parameter_invalid: {next(iter(strings))}")


def test_a_request_may_mix_token_ids_and_texts(step: TextStep) -> None:
    request = make_request(["", "ab", ""]) | {
        "token_ids": np.array([65, 66, 67], dtype=np.int64),
        "token_id_counts": np.array([2, 0, 1], dtype=np.int32),
    }
    [result] = process(step, request)
    assert result["sequence_lengths"].tolist() == [3, 3, 2]
    assert result["input_ids"].tolist()[:3] == [256, 65, 66] and result["input_ids"].tolist()[-1] == 67


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        ({}, ["", "token_id_invalid"]),
        ({"token_id_policy": "checked"}, ["", "token_id_invalid"]),
        ({"token_id_policy": "any"}, ["", ""]),
    ],
)
def test_the_policy_decides_about_token_ids_that_no_text_has(
    step: TextStep, byte_level: Path, policy: dict[str, str], codes: list[str]
) -> None:
    vocabulary = Tokenizer.from_file(str(byte_level)).get_vocab()
    half_a_character = [vocabulary[token] for token in ("a", "Ã", "b")]
    request = make_request(["ab", ""], **policy) | {
        "token_ids": np.array(half_a_character, dtype=np.int64),
        "token_id_counts": np.array([0, 3], dtype=np.int32),
    }
    [result] = process(step, request)
    assert read_codes(result) == codes


@pytest.mark.parametrize("counts", [[1], [2, 2], [-1, 4], [3, 1]])
def test_token_id_counts_that_do_not_add_up_fail_the_request(step: TextStep, counts: list[int]) -> None:
    request = make_request(["", ""]) | {
        "token_ids": np.array([1, 2, 3], dtype=np.int64),
        "token_id_counts": np.array(counts, dtype=np.int32),
    }
    [failed] = step.process([request])
    assert isinstance(failed, RequestError) and str(failed).startswith("parameter_invalid: token_id_counts")


def test_texts_for_an_embedder_with_images_carry_one_placeholder_row(byte_level: Path) -> None:
    step = TextStep(byte_level.parent, replace(SETTINGS, image_token_id=IMAGE_TOKEN_ID, image_embeds_dim=4))
    [result] = process(step, make_request(["a", "b"]))
    assert result["image_rows"].tolist() == [1, 0]
    assert result["image_embeds"].shape == (1, 4) and np.isnan(result["image_embeds"]).all()


def test_text_steps_do_not_load_the_image_code() -> None:
    script = "import sys, preprocess.steps; sys.exit('PIL' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "backends")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def make_image_request(images: Sequence[bytes], texts: Sequence[bytes] | None = None, **strings: str) -> dict[str, Any]:
    request = {"image": np.array(images, dtype=np.object_)}
    if texts is not None:
        request["text"] = np.array(texts, dtype=np.object_)
    return request | {name: np.array([value.encode()], dtype=np.object_) for name, value in strings.items()}


SQUARE, WIDE = encode(draw_scene(32, 32), "PNG"), encode(draw_scene(64, 32), "PNG")


def test_images_become_patches_and_prompts(image_step: ImageStep, byte_level: Path) -> None:
    first, second = process(image_step, make_image_request([SQUARE, WIDE], [b"a", b""]), make_image_request([WIDE]))
    assert first["tile_counts"].tolist() == first["image_rows"].tolist() == [1, 3]
    assert (first["patches"].shape, second["patches"].shape) == ((4, 3072), (3, 3072))
    assert np.array_equal(first["patches"][1:], second["patches"])
    reference = Tokenizer.from_file(str(byte_level))
    before = reference.encode(IMAGE_PREFIX).ids
    after = reference.encode(f"{IMAGE_SUFFIX}a", add_special_tokens=False).ids
    length = first["sequence_lengths"][0]
    assert first["input_ids"][:length].tolist() == [*before, IMAGE_TOKEN_ID, *after]
    assert np.count_nonzero(first["input_ids"] == IMAGE_TOKEN_ID) == 4


def test_an_empty_file_with_a_page_is_the_file_before(image_step: ImageStep) -> None:
    document = make_pdf([fill(1, 0, 0), fill(0, 1, 0)], 32, 32)
    repeated = make_image_request([SQUARE, document, b""]) | {"page": np.array([0, 2, 1], np.int32)}
    spelled_out = make_image_request([SQUARE, document, document]) | {"page": np.array([0, 2, 1], np.int32)}
    first, second = process(image_step, repeated, spelled_out)
    assert first["page_counts"].tolist() == [0, 2, 2]
    assert np.array_equal(first["patches"], second["patches"])
    assert first["patches"][1:].reshape(2, -1, 3)[:, 0].tolist() == [[0, 255, 0], [255, 0, 0]]


def test_texts_beside_images_are_counted_before_truncation(image_step: ImageStep) -> None:
    texts = [b"a", b"far too long for this limit", b"\xff"]
    [result] = process(image_step, make_image_request([SQUARE] * 3, texts, truncate="END"))
    assert result["untruncated_token_counts"].tolist() == [15, 41, 0]
    assert result["token_counts"].tolist() == [15, 30, 0]


def test_a_failed_image_has_neither_patches_nor_tokens(image_step: ImageStep) -> None:
    images, texts = [b"<svg/>", SQUARE, SQUARE, WIDE], [b"", b"\xff", b"far too long for this limit", b""]
    [result] = process(image_step, make_image_request(images, texts))
    assert read_codes(result) == ["image_unsupported", "text_invalid", "text_too_long", ""]
    assert result["tile_counts"].tolist() == [0, 0, 0, 3]
    assert result["patches"].shape == (3, 3072)
    assert result["sequence_lengths"].tolist()[:3] == [0, 0, 0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_image_request([SQUARE], [b"", b""]), "parameter_invalid: text"),
        (make_image_request([SQUARE], truncate="end"), "parameter_invalid: truncate"),
        (make_image_request([SQUARE]) | {"page": np.zeros(2, np.int32)}, "parameter_invalid: page"),
        (make_image_request([SQUARE]) | {"page": np.array([-1], np.int32)}, "parameter_invalid: page"),
        (make_image_request([b"<svg/>", b""]), "image_unsupported: "),
    ],
    ids=["text count", "truncate", "page count", "negative page", "all images"],
)
def test_a_failed_image_request_leaves_its_neighbours_alone(
    image_step: ImageStep, request_: dict[str, Any], message: str
) -> None:
    failed, valid = run(image_step, [request_, make_image_request([SQUARE])])
    assert isinstance(failed, RequestError) and str(failed).startswith(message)
    assert not isinstance(valid, RequestError) and valid["tile_counts"].tolist() == [1]


def test_a_request_is_answered_while_a_slow_one_is_decoded(byte_level: Path) -> None:
    settings = replace(SETTINGS, image_token_id=IMAGE_TOKEN_ID, max_passage_tokens=30)
    step = ImageStep(byte_level.parent, settings, read_image_settings(decode_workers="2"))
    huge = encode(Image.new("RGB", (6000, 6000)), "WEBP", lossless=True, quality=0, method=0)
    slow, quick = step.submit(make_image_request([huge, SQUARE])), step.submit(make_image_request([SQUARE]))
    result = quick.result(60)
    assert not slow.done()
    assert not isinstance(result, RequestError) and result["tile_counts"].tolist() == [1]
    result = slow.result(60)
    assert not isinstance(result, RequestError) and result["tile_counts"].tolist() == [1, 1]
    step.close()


def test_a_request_for_which_nobody_waits_is_given_up(image_step: ImageStep) -> None:
    with pytest.raises(ExpiredError):
        image_step.submit(make_image_request([SQUARE]), timeout_s=0).result(60)
    [result] = process(image_step, make_image_request([SQUARE]))
    assert result["tile_counts"].tolist() == [1]


@pytest.mark.parametrize(("parameters", "limit"), [({}, 26_214_400), ({"max_image_bytes": "31457280"}, 31_457_280)])
def test_max_image_bytes_is_the_limit_on_an_encoded_image(
    byte_level: Path, parameters: dict[str, str], limit: int
) -> None:
    step = ImageStep(
        byte_level.parent,
        replace(SETTINGS, image_token_id=IMAGE_TOKEN_ID, max_passage_tokens=30),
        read_image_settings(**parameters),
    )
    padded = [SQUARE.ljust(size, b"\0") for size in (limit, limit + 1)]
    [result] = process(step, make_image_request(padded))
    step.close()
    assert result["tile_counts"].tolist() == [1, 0]
    message = f"image_too_large: the image has {limit + 1} bytes; the limit is {limit}"
    assert [error.decode() for error in result["errors"]] == ["", message]


@pytest.mark.parametrize(("cores", "workers"), [(1, 2), (2, 2), (6, 3), (16, 8), (128, 16)])
def test_decoders_follow_the_cores_unless_they_are_set(
    cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert read_image_settings(decode_workers="").decode_workers == workers
    assert read_image_settings(decode_workers="5").decode_workers == 5


def test_decoders_have_memory_for_the_largest_image(byte_level: Path) -> None:
    """An image of this size, only announced here, would not fit into the memory for smaller ones."""
    image = read_image_settings(max_image_bytes=str(4 * 1024**3))
    step = ImageStep(byte_level.parent, replace(SETTINGS, image_token_id=IMAGE_TOKEN_ID, max_passage_tokens=30), image)
    [result] = process(step, make_image_request([SQUARE]))
    step.close()
    assert result["tile_counts"].tolist() == [1]


def test_a_prompt_is_put_before_every_text_and_one_that_is_too_long_fails_the_request(byte_level: Path) -> None:
    step = TextStep(byte_level.parent, replace(SETTINGS, max_query_tokens=50, max_passage_tokens=50))
    results = run(
        step,
        [
            make_request(["ab", "c"], prompt="task: "),
            make_request(["task: ab", "task: c"]),
            make_request(["a"], prompt="a" * 4097),
            {**make_request(["a"]), "prompt": np.array([b"\xff"], dtype=np.object_)},
        ],
    )
    first, second, *refused = results
    assert not isinstance(first, RequestError) and not isinstance(second, RequestError)
    assert first["input_ids"].tolist() == second["input_ids"].tolist()
    assert [str(each).partition(": ")[0] for each in refused] == ["parameter_invalid"] * 2
