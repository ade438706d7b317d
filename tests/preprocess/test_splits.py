import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from preprocess.splits import Splits
from tests.preprocess.sample_tokenizers import PIECES, TOKENIZERS, encode, load
from tests.sentences import load_sentences

SEPARATORS = [" ", "  ", "\n", "\r\n", "\t", " \n ", ".", ",", "'", "'s", "'LL ", "!", "。", "，", "\u3000", "\u00a0"]  # noqa: RUF001
SEPARATORS += ["-", "_", '"', "(", ")", "\u0301", "\u0338", "\u200b", "1", "12", "3456", "\x1c", "\x85"]

texts = st.lists(
    st.one_of(
        st.sampled_from(SEPARATORS),
        st.sampled_from(PIECES),
        st.sampled_from(load_sentences()[:100]),
        st.text(max_size=5),
    ),
    max_size=30,
).map("".join)


def change(
    tokenizer: Tokenizer,
    *,
    normalizer: normalizers.Normalizer | None = None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
) -> Tokenizer:
    """Return a copy of a tokenizer with another normalizer or pre-tokenizer."""
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.encode_special_tokens = True
    changed.normalizer = normalizer or changed.normalizer
    changed.pre_tokenizer = pre_tokenizer or changed.pre_tokenizer
    return changed


def list_tokenizers() -> dict[str, Tokenizer]:
    """Return tokenizers in whose texts there are certain splits, with the parts of published ones."""
    byte_level, wordpiece, unigram = (load(name) for name in ("byte_level", "wordpiece", "unigram"))
    single_spaces = normalizers.Replace(Regex(" {2,}"), " ")
    return {name: load(name) for name in TOKENIZERS} | {
        "gpt2": change(byte_level, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "qwen2": change(byte_level, normalizer=normalizers.NFC()),
        "decomposed": change(
            byte_level, normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
        ),
        "cased": change(wordpiece, normalizer=normalizers.BertNormalizer(lowercase=False, strip_accents=False)),
        "lowercase": change(
            wordpiece, normalizer=normalizers.Sequence([normalizers.Lowercase(), normalizers.BertNormalizer()])
        ),
        "xlm_roberta": change(
            unigram,
            normalizer=normalizers.Sequence([normalizers.NFKC(), single_spaces]),
            pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        ),
        "first_word": change(
            unigram,
            normalizer=normalizers.Sequence([normalizers.Strip(left=False, right=True), normalizers.Nmt()]),
            pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"),
        ),
    }


ALL_TOKENIZERS = list_tokenizers()


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(text=texts)
def test_pieces_have_the_tokens_of_the_whole(name: str, text: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]
    splits = Splits(tokenizer)
    pieces = list(splits.cut(text, max_chars=1))
    assert "".join(pieces) == text
    assert [token_id for piece in pieces for token_id in encode(tokenizer, piece)] == encode(tokenizer, text)


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
def test_real_texts_have_many_splits(name: str) -> None:
    text = " ".join(load_sentences()[:100])
    pieces = list(Splits(ALL_TOKENIZERS[name]).cut(text, max_chars=200))
    assert max(map(len, pieces)) <= 200
    assert min(map(len, pieces[:-1])) > 50


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(split=False),
        pre_tokenizers.Split(Regex(r"\p{L}+ \p{L}+"), "isolated"),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\w+ ?"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
    ],
)
def test_nothing_is_certain_for_an_unknown_pre_tokenizer(pre_tokenizer: pre_tokenizers.PreTokenizer) -> None:
    splits = Splits(change(load("byte_level"), pre_tokenizer=pre_tokenizer))
    assert list(splits.cut("The cat sat. On a mat.", max_chars=5)) == ["The cat sat. On a mat."]
    assert splits.find_first("The cat", 1) is splits.find_last("The cat", 1, 6) is None
    assert not splits.is_at("The cat", 3)


def test_nothing_is_certain_for_an_unknown_normalizer() -> None:
    assert Splits(change(load("wordpiece"), normalizer=normalizers.Replace(". ", ""))).pattern is None


def test_nothing_is_certain_if_added_tokens_may_span_words() -> None:
    tokenizer = change(load("wordpiece"))
    tokenizer.add_tokens(["New York"])
    assert Splits(tokenizer).pattern is None


def test_splits_that_do_not_hold_are_not_used() -> None:
    """A tokenizer that truncates is none of which the pieces have the tokens of the whole."""
    tokenizer = change(load("wordpiece"))
    assert Splits(tokenizer).pattern is not None
    tokenizer.enable_truncation(3)
    assert Splits(tokenizer).pattern is None


def test_the_last_and_the_first_split_are_found_in_long_texts() -> None:
    splits = Splits(load("wordpiece"))
    text = "a" * 5000 + " " + "b" * 5000
    assert splits.find_last(text, 1, 9000) == splits.find_first(text, 1) == 5000
    assert (
        splits.find_last(text, 1, 4999) is splits.find_last(text, 5001, 9000) is splits.find_first(text, 5001) is None
    )
    assert list(splits.cut(text, max_chars=1000)) == [text[:5000], text[5000:]]
