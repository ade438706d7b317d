import json

import pytest
from tokenizers import Tokenizer

from export.errors import CheckpointError
from export.tokenizer import prepare_tokenizer
from tests.export.tiny_bert import character_tokenizer


@pytest.fixture
def published() -> dict:
    """A tokenizer that cuts and pads to 16 tokens, with a token of a vision model."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<IMG>"])
    return json.loads(tokenizer.to_str())


def test_texts_are_neither_cut_nor_padded(published):
    prepared = Tokenizer.from_str(prepare_tokenizer(published).decode())
    assert len(prepared.encode("a").ids) == 3
    assert len(prepared.encode("a" * 40).ids) == 42


def test_image_token_becomes_special_and_the_others_stay(published):
    image_token_id = published["added_tokens"][-1]["id"]
    prepared = json.loads(prepare_tokenizer(published, image_token_id=image_token_id))
    assert prepared["added_tokens"][-1] == {**published["added_tokens"][-1], "special": True}
    assert prepared["added_tokens"][:-1] == published["added_tokens"][:-1]


def test_image_token_that_the_tokenizer_does_not_know_is_refused(published):
    with pytest.raises(CheckpointError, match="no added token of id 99999"):
        prepare_tokenizer(published, image_token_id=99999)


def test_lowering_comes_before_everything_else(published):
    prepared = Tokenizer.from_str(prepare_tokenizer(published, lowercase=True).decode())
    assert prepared.encode("ABC").tokens == ["[CLS]", "a", "##b", "##c", "[SEP]"]
