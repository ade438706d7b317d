import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from preprocess.items import ItemError, Truncate
from preprocess.prompts import PIECE_CHARS, Prompt, PromptReader, count_read_chars
from tests.preprocess.sample_tokenizers import PIECES, TOKENIZERS, encode, load
from tests.preprocess.test_splits import ALL_TOKENIZERS
from tests.sentences import load_sentences
from tests.service import PROJECT

MAX_TOKENS = 256
READ_CHARS = count_read_chars(MAX_TOKENS)
SENTENCES = load_sentences()[:100]
CUT_SIDES = [Truncate.END, Truncate.START]

passages = st.lists(
    st.one_of(st.sampled_from(SENTENCES), st.sampled_from(PIECES), st.text(max_size=8)), min_size=5
).map(lambda pieces: " ".join(pieces) + "A word")


def read(tokenizer: Tokenizer, text: str, truncate: Truncate, prefix: str = "passage: ") -> list[int]:
    """Return the token ids of a prompt that must not fail."""
    [body] = PromptReader(tokenizer).read([Prompt(prefix, text, truncate, MAX_TOKENS)])
    assert not isinstance(body, ItemError), body.message
    return body


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@settings(deadline=None, max_examples=8)
@given(passages, st.sampled_from(["", " ", "\n", "。"]), st.integers(READ_CHARS + 1, 2 * READ_CHARS))
def test_what_truncation_keeps_of_a_very_long_text_is_exact(
    name: str, passage: str, separator: str, length: int
) -> None:
    tokenizer = ALL_TOKENIZERS[name]
    text = ((passage + separator) * (length // len(passage) + 1))[:length]
    whole = encode(tokenizer, "passage: " + text)
    beginning, end = (read(tokenizer, text, side) for side in CUT_SIDES)
    prefix_ids = encode(tokenizer, "passage:")
    assert MAX_TOKENS < len(beginning) <= len(whole) and MAX_TOKENS < len(end) <= len(whole)
    assert beginning == whole[: len(beginning)]
    assert end[: len(prefix_ids)] == prefix_ids == whole[: len(prefix_ids)]
    assert end[len(prefix_ids) :] == whole[len(prefix_ids) - len(end) :]


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("truncate", list(Truncate))
def test_a_long_text_has_all_its_tokens(name: str, truncate: Truncate) -> None:
    text = " ".join(SENTENCES * 10)[:READ_CHARS]
    assert len(text) > PIECE_CHARS
    assert read(ALL_TOKENIZERS[name], text, truncate) == encode(ALL_TOKENIZERS[name], "passage: " + text)


def test_many_texts_have_the_tokens_that_each_has_alone() -> None:
    tokenizer = load("byte_level")
    texts = [" ".join(SENTENCES[: number % 100]) for number in range(60)] + ["", "x " * PIECE_CHARS, "cat"]
    prompts = [Prompt("query: ", text, Truncate.NONE, MAX_TOKENS) for text in texts]
    assert PromptReader(tokenizer).read(prompts) == [encode(tokenizer, "query: " + text) for text in texts]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_very_long_text_is_refused_without_truncation(name: str) -> None:
    [error] = PromptReader(load(name)).read([Prompt("", "a " * READ_CHARS, Truncate.NONE, MAX_TOKENS)])
    assert isinstance(error, ItemError) and error.code == "text_too_long"
    assert error.message == (
        "131072 characters exceed the limit of 65536 for 256 tokens; truncate END or START cuts them"
    )


@pytest.mark.parametrize("truncate", CUT_SIDES)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wordpiece", "a" * 100_000),
        ("wordpiece", " " * 100_000 + "cat" + " " * 100_000),
        ("byte_level", "!" * 100_000),
        ("byte_level", "e" + "\u0301" * 100_000),
        ("unigram", "人" * 100_000),
    ],
    ids=["a word", "white space", "punctuation", "combining marks", "ideographs"],
)
def test_a_very_long_text_that_cannot_be_cut_exactly_is_refused(name: str, text: str, truncate: Truncate) -> None:
    [error] = PromptReader(load(name)).read([Prompt("", text, truncate, MAX_TOKENS)])
    assert isinstance(error, ItemError) and error.code == "text_too_long"
    assert error.message.startswith(
        f"the {'first' if truncate is Truncate.END else 'last'} 65536 characters do not tell"
    )
    assert len(str(error)) < 200


@pytest.mark.parametrize("truncate", CUT_SIDES)
def test_a_very_long_text_of_punctuation_is_cut_for_bert(truncate: Truncate) -> None:
    ids = read(load("wordpiece"), "!" * 4_000_000, truncate, prefix="")
    assert set(ids) == set(encode(load("wordpiece"), "!"))


def test_an_end_is_not_read_behind_a_prefix_that_may_merge_with_the_text() -> None:
    [error] = PromptReader(load("byte_level")).read(
        [Prompt("passage:", "!! a" * READ_CHARS, Truncate.START, MAX_TOKENS)]
    )
    assert isinstance(error, ItemError) and error.code == "text_too_long"


@pytest.mark.parametrize("name", ALL_TOKENIZERS)
@pytest.mark.parametrize("prefix", ["passage: ", "passage:", "", "</img> "])
def test_the_tokens_of_the_prefix_are_counted(name: str, prefix: str) -> None:
    tokenizer = ALL_TOKENIZERS[name]
    prompt = Prompt(prefix, "the cat sat", Truncate.START, MAX_TOKENS)
    encoding = tokenizer.encode(prefix + prompt.text, add_special_tokens=False)
    end = len(prefix.rstrip())
    assert PromptReader(tokenizer).count_prefix(prompt) == sum(0 < stop <= end for _, stop in encoding.offsets)


def test_reading_takes_bounded_memory(tmp_path: Path) -> None:
    """Tokenised as a whole, this text takes more than 400 bytes per character."""
    load("wordpiece").save(str(tmp_path / "tokenizer.json"))
    script = (
        "import resource, sys; from tokenizers import Tokenizer; from preprocess.items import Truncate;"
        "from preprocess.prompts import Prompt, PromptReader;"
        "text = '!' * 10_000_000; reader = PromptReader(Tokenizer.from_file(sys.argv[1]));"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "reader.read([Prompt('', text, side, 256) for side in Truncate]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "tokenizer.json")]
    environment = {"PYTHONPATH": str(PROJECT / "backends")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 200_000  # kB
