import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from preprocess.round_trip import RoundTrip
from tests.preprocess.sample_tokenizers import TOKENIZERS, encode, load, sample_texts
from tests.sentences import load_sentences

CHUNK_TOKENS = (1, 2, 3, 5, 8, 16, 32, 64)
UNUSED_TOKENS = 1000


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_models_own_token_ids_survive(name: str) -> None:
    tokenizer = load(name)
    texts = [text for text in sample_texts() if encode(tokenizer, text)]
    survived = RoundTrip(tokenizer).survives([encode(tokenizer, text) for text in texts])
    assert [text for text, survives in zip(texts, survived, strict=True) if not survives] == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_chunks_of_a_models_own_token_ids_survive(name: str) -> None:
    tokenizer, randomness = load(name), random.Random(7)
    chunks = []
    for text in sample_texts():
        ids = encode(tokenizer, text)
        for length in CHUNK_TOKENS:
            starts = range(len(ids) - length + 1)
            chunks += [ids[start : start + length] for start in randomness.sample(starts, min(3, len(starts)))]
    assert len(chunks) > 5_000
    survived = RoundTrip(tokenizer).survives(chunks)
    failed = [chunk for chunk, survives in zip(chunks, survived, strict=True) if not survives]
    assert [[tokenizer.id_to_token(each) for each in chunk] for chunk in failed] == []


def test_token_ids_of_another_tokenizer_do_not_survive() -> None:
    """Frequent tokens of other tokenizers have low ids, which are not used in BERT's vocabulary."""
    vocabulary = {token: token_id + UNUSED_TOKENS for token, token_id in load("wordpiece").get_vocab().items()}
    vocabulary |= {f"[unused{token_id}]": token_id for token_id in range(UNUSED_TOKENS)}
    tokenizer = Tokenizer.from_str(load("wordpiece").to_str())
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.encode_special_tokens = True
    bodies = [encode(load("byte_level"), sentence) for sentence in load_sentences()]
    bodies = [body for body in bodies if len(body) >= 4]
    assert len(bodies) > 150
    assert not any(RoundTrip(tokenizer).survives(bodies))


def test_token_ids_in_another_order_do_not_survive() -> None:
    tokenizer, randomness = load("byte_level"), random.Random(3)
    bodies = [encode(tokenizer, sentence) for sentence in load_sentences()]
    shuffled = [randomness.sample(body, len(body)) for body in bodies if len(body) > 120]
    assert len(shuffled) > 80
    assert not any(RoundTrip(tokenizer).survives(shuffled))


def test_special_and_unknown_tokens_are_left_out() -> None:
    tokenizer = load("wordpiece")
    padding, unknown, separator = (tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[SEP]"))
    with_unknown = encode(tokenizer, "a lighthouse \U00013000 and a boat")
    assert unknown in with_unknown
    first, second = encode(tokenizer, "first sentence"), encode(tokenizer, "second sentence")
    bodies = [with_unknown, [*first, separator, *second, padding, padding], [unknown], []]
    assert RoundTrip(tokenizer).survives(bodies) == [True] * 4
    pieces = encode(tokenizer, "xylophones")
    assert RoundTrip(tokenizer).survives([[*first, separator, *pieces[::-1]]]) == [False]


def test_a_chunk_may_begin_inside_a_word() -> None:
    tokenizer = load("wordpiece")
    body = encode(tokenizer, "xylophones")
    assert len(body) > 2
    assert RoundTrip(tokenizer).survives([body[1:], [*body[1:], *encode(tokenizer, "and a boat")]]) == [True, True]
    assert RoundTrip(tokenizer).survives([body[1:][::-1]]) == [False]


def test_a_chunk_may_begin_and_end_inside_a_character() -> None:
    tokenizer = load("byte_level")
    body = encode(tokenizer, "🐶 and 🐱")
    assert tokenizer.decode(body[1:-1]).startswith("\ufffd") and tokenizer.decode(body[1:-1]).endswith("\ufffd")
    assert RoundTrip(tokenizer).survives([body[1:-1]]) == [True]
    inside = [*encode(tokenizer, "a"), *body[1:]]
    assert RoundTrip(tokenizer).survives([inside]) == [False]


def test_without_a_letter_to_put_before_it_a_chunk_that_begins_inside_a_word_is_refused() -> None:
    pieces = ["[UNK]", "a", "##a", "aa", "##aa"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    assert RoundTrip(tokenizer).anchor == []
    assert RoundTrip(tokenizer).survives([[3, 2], [4, 2]]) == [True, False]


def test_a_token_id_without_a_token_does_not_survive() -> None:
    tokenizer = load("byte_level")
    assert RoundTrip(tokenizer).survives([[5000], [*encode(tokenizer, "a boat"), 5000]]) == [False, False]
