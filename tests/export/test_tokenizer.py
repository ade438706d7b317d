import json

import pytest
from tokenizers import Tokenizer

from export.errors import CheckpointError
from export.sample_texts import SAMPLE_TEXTS
from export.tokenizer import (
    check_token_ids,
    load_tokenizer,
    prepare_tokenizer,
    read_padded_length,
    survives_round_trip,
)
from tests.export.golden_inputs import CHECKPOINT
from tests.export.tiny_bert import character_tokenizer


@pytest.fixture
def published() -> dict:
    """A tokenizer that truncates and pads to 16 tokens, with an image token."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<IMG>"])
    return json.loads(tokenizer.to_str())


def test_texts_are_neither_truncated_nor_padded(published):
    prepared = Tokenizer.from_str(prepare_tokenizer(published).decode())
    assert len(prepared.encode("a").ids) == 3
    assert len(prepared.encode("a" * 40).ids) == 42


def test_image_token_becomes_special_and_others_are_unchanged(published):
    image_token_id = published["added_tokens"][-1]["id"]
    prepared = json.loads(prepare_tokenizer(published, image_token_id=image_token_id))
    assert prepared["added_tokens"][-1] == {**published["added_tokens"][-1], "special": True}
    assert prepared["added_tokens"][:-1] == published["added_tokens"][:-1]


def test_image_token_unknown_to_the_tokenizer_is_refused(published):
    with pytest.raises(CheckpointError, match="no added token of id 99999"):
        prepare_tokenizer(published, image_token_id=99999)


def test_text_is_lowered_before_the_normalizer(published):
    prepared = Tokenizer.from_str(prepare_tokenizer(published, lowercase=True).decode())
    assert prepared.encode("ABC").tokens == ["[CLS]", "a", "##b", "##c", "[SEP]"]


def test_token_without_a_row_is_named(published):
    rows = len(character_tokenizer().get_vocab())
    check_token_ids(prepare_tokenizer(published), rows + 1)
    with pytest.raises(CheckpointError, match=rf"gives '<IMG>' the id {rows}, but .* only {rows} rows"):
        check_token_ids(prepare_tokenizer(published), rows)


def test_special_token_without_a_row_is_named(published):
    published["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [9999]
    with pytest.raises(CheckpointError, match=r"gives '\[SEP\]' the id 9999"):
        check_token_ids(prepare_tokenizer(published), 1000)


def test_tokenizer_that_decodes_what_it_has_encoded_survives_the_round_trip():
    tokenizer = (CHECKPOINT / "tokenizer.json").read_bytes()
    assert survives_round_trip(tokenizer, SAMPLE_TEXTS)


def test_tokenizer_without_a_decoder_does_not_survive_the_round_trip(published):
    assert not survives_round_trip(prepare_tokenizer(published), SAMPLE_TEXTS)


def test_texts_with_unknown_tokens_do_not_count_in_the_round_trip(published):
    published["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    assert survives_round_trip(prepare_tokenizer(published), SAMPLE_TEXTS)
    published["decoder"]["prefix"] = "@@"
    assert survives_round_trip(prepare_tokenizer(published), ["漢字"])
    assert not survives_round_trip(prepare_tokenizer(published), ["漢字", "kanji"])


@pytest.mark.parametrize("content", [b"{}", b"", b"[]", b'{"model": {"type": "unheard-of"}}', b"\xff"])
def test_tokenizer_that_cannot_be_loaded_is_refused(content):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be loaded"):
        load_tokenizer(content)


def test_a_tokenizer_without_fixed_padding_pads_no_text():
    tokenizer = character_tokenizer()
    assert read_padded_length(prepare_tokenizer(json.loads(tokenizer.to_str()))) == 0
    tokenizer.enable_padding()
    assert read_padded_length(tokenizer.to_str().encode()) == 0
