"""Pairs of query and document: the tokens are those of the whole text, and only the document is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from preprocess.items import ItemError, RequestError, TokenSequence, Truncate
from preprocess.pairs import PairTokenizer
from preprocess.prompts import Prompt, count_read_chars
from preprocess.settings import ImageLimits, ImageSettings, PairSettings, TextSettings, Tiling
from preprocess.steps import RankStep, load_step
from tests.preprocess.sample_tokenizers import TOKENIZERS, encode, load, sample_texts

HEAD, MIDDLE, TAIL = [900001], [900002, 900002], [900003]
QUESTION, PASSAGE = "question:", " \n \n passage:"
SETTINGS = TextSettings("", "", 60, 60, 10**6, None, 0, pair=PairSettings(HEAD, MIDDLE, TAIL, has_token_types=True))
JOINED = replace(
    SETTINGS, query_prefix=QUESTION, passage_prefix=PASSAGE, pair=PairSettings(HEAD, [], TAIL, has_token_types=False)
)
IMAGE = ImageSettings("<img>", "</img> ", Tiling(), ImageLimits(), 1)
QUERIES = ["What is it?", "spaces  ", "1 \n", "人生", "", "don't:"]


@pytest.fixture(params=TOKENIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(kind: str, tmp_path: Path) -> Path:
    load(kind).save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def rank(
    tokenizer: PairTokenizer, query: str, texts: list[str], truncate: Truncate = Truncate.NONE
) -> list[TokenSequence | ItemError]:
    return tokenizer.encode(tokenizer.tokenize(query), texts, [0] * len(texts), truncate=truncate)


def ids_of(results: list[TokenSequence | ItemError]) -> list[list[int]]:
    assert not any(isinstance(result, ItemError) for result in results)
    return [result.ids for result in results if isinstance(result, TokenSequence)]


def test_separate_texts_have_the_tokens_of_each(kind: str, path: Path) -> None:
    tokenizer = PairTokenizer(path, replace(SETTINGS, max_passage_tokens=10**4))
    texts = sample_texts()
    for query in QUERIES:
        before = [*HEAD, *encode(load(kind), query), *MIDDLE]
        expected = [[*before, *encode(load(kind), text), *TAIL] for text in texts]
        results = rank(tokenizer, query, texts)
        assert ids_of(results) == expected
        assert {result.text_start for result in results if isinstance(result, TokenSequence)} == {len(before)}


def test_one_text_has_the_tokens_of_the_whole(kind: str, path: Path) -> None:
    tokenizer = PairTokenizer(path, replace(JOINED, max_passage_tokens=10**4))
    texts = ["", *sample_texts()]
    for query in QUERIES:
        wholes = [f"{QUESTION}{query}{PASSAGE}{text}" for text in texts]
        assert ids_of(rank(tokenizer, query, texts)) == [[*HEAD, *encode(load(kind), whole), *TAIL] for whole in wholes]


def test_the_query_is_tokenised_once_where_the_tokenizer_splits(path: Path, kind: str) -> None:
    tokenizer = PairTokenizer(path, JOINED)
    assert tokenizer.tokenize("What is it?").prefix == (PASSAGE if kind == "unigram" else ":")


@pytest.mark.parametrize("settings", [SETTINGS, JOINED], ids=["separate", "joined"])
@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_only_the_document_is_cut(path: Path, settings: TextSettings, truncate: Truncate) -> None:
    tokenizer = PairTokenizer(path, settings)
    unlimited = PairTokenizer(path, replace(settings, max_passage_tokens=10**6))
    text = " ".join(sample_texts()[:20])
    [whole] = ids_of(rank(unlimited, "What is it?", [text]))
    [cut] = rank(tokenizer, "What is it?", [text], truncate)
    assert isinstance(cut, TokenSequence)
    assert (len(cut.ids), cut.untruncated_count) == (60, len(whole))
    start = cut.text_start
    assert cut.ids[:start] == whole[:start]
    assert cut.ids[-1:] == TAIL
    if truncate is Truncate.END:
        assert cut.ids[:-1] == whole[:59]
    else:
        prompt = Prompt(tokenizer.tokenize("What is it?").prefix, text, truncate, 60)
        kept = start + tokenizer.reader.count_prefix(prompt)
        assert cut.ids[:kept] == whole[:kept]
        assert cut.ids[kept:] == whole[kept - 60 :]


def test_a_long_document_is_refused_unless_it_may_be_cut(path: Path) -> None:
    short, long = rank(PairTokenizer(path, SETTINGS), "What is it?", ["short", " word" * 90])
    assert isinstance(short, TokenSequence)
    assert isinstance(long, ItemError) and long.code == "text_too_long"


@pytest.mark.parametrize("settings", [SETTINGS, JOINED], ids=["separate", "joined"])
def test_a_very_long_document_is_read_as_far_as_it_is_kept(path: Path, settings: TextSettings) -> None:
    tokenizer = PairTokenizer(path, settings)
    text = "many words " * 100_000
    [cut] = rank(tokenizer, "What is it?", [text], Truncate.END)
    [short] = rank(tokenizer, "What is it?", [text[:5000]], Truncate.END)
    assert isinstance(cut, TokenSequence) and isinstance(short, TokenSequence)
    assert cut.ids == short.ids


@pytest.mark.parametrize("query", ["word " * 100, "word " * count_read_chars(60)], ids=["tokens", "characters"])
@pytest.mark.parametrize("settings", [SETTINGS, JOINED], ids=["separate", "joined"])
def test_a_query_without_room_for_a_document_is_refused(path: Path, settings: TextSettings, query: str) -> None:
    tokenizer = PairTokenizer(path, settings)
    with pytest.raises(ItemError, match="text_too_long: the query"):
        tokenizer.tokenize(query)
    with pytest.raises(RequestError, match=r"text_too_long: the query .*\ntext_too_long: the query"):
        tokenizer.read(query, 2)


def test_images_come_before_the_query(path: Path, kind: str) -> None:
    settings = replace(JOINED, image_token_id=900004, max_passage_tokens=10**4)
    tokenizer = PairTokenizer(path, settings, IMAGE)
    query = tokenizer.tokenize("What is it?")
    texts, counts = ["", "a text"], [3, 5]
    results = tokenizer.encode(query, texts, counts, truncate=Truncate.NONE)
    before = encode(load(kind), "<img>")
    for found, text, count in zip(ids_of(results), texts, counts, strict=True):
        after = encode(load(kind), f"</img> {QUESTION}What is it?{PASSAGE}{text}")
        assert found == [*HEAD, *before, *[900004] * count, *after, *TAIL]
    [refused] = tokenizer.encode(query, ["a"], [10**4], truncate=Truncate.END)
    assert isinstance(refused, ItemError) and refused.code == "text_too_long"


def test_special_tokens_in_a_text_are_text(byte_level: Path) -> None:
    tokenizer = PairTokenizer(byte_level, JOINED)
    special = Tokenizer.from_file(str(byte_level)).token_to_id("<bos>")
    for found in ids_of(rank(tokenizer, "<bos>", ["<bos>", "<IMG_CONTEXT>"])):
        assert special not in found and special + 1 not in found


def make_step(path: Path, **parameters: str) -> RankStep:
    pair = {"pair_head": "[1]", "pair_middle": "[2]", "pair_tail": "[2]", "token_types": "true"}
    limits = {"max_query_tokens": "30", "max_passage_tokens": "30", "vocab_size": "1000"}
    step = load_step(path.parent, {"modality": "text", "task": "rank", **pair, **limits, **parameters})
    assert isinstance(step, RankStep)
    return step


def request(query: Any, *texts: Any, **options: Any) -> dict[str, Any]:
    tensors = {"query": np.array(query, np.object_), "text": np.array(texts, np.object_)}
    return tensors | {name: np.array([value], np.object_) for name, value in options.items()}


def test_a_step_packs_pairs_with_their_token_types(wordpiece: Path) -> None:
    step = make_step(wordpiece)
    first, second = step.process([request([b"the cat"], b"sat", b"\xff", b"a mat"), request([b"is"], b"it")])
    assert not isinstance(first, RequestError) and not isinstance(second, RequestError)
    assert first["sequence_lengths"].tolist() == [6, 0, 7]
    assert first["token_types"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert [error.decode().partition(":")[0] for error in first["errors"]] == ["", "text_invalid", ""]
    assert second["token_counts"].tolist() == [5]
    assert second["token_types"].dtype == np.int64
    step.close()


def test_a_step_of_a_multimodal_model_brings_the_rows_of_no_image(wordpiece: Path) -> None:
    step = make_step(wordpiece, image_token_id="5", image_embeds_dim="4", token_types="false")
    [packed] = step.process([request([b"the cat"], b"sat", b"a mat")])
    assert not isinstance(packed, RequestError)
    assert "token_types" not in packed
    assert packed["image_embeds"].shape == (1, 4)
    assert packed["image_rows"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request([b"\xff"], b"a", b"b"), "text_invalid: the query must be UTF-8\ntext_invalid"),
        (request([b"the " * 50], b"a"), "text_too_long: the query takes 53 of at most 30 tokens"),
        (request([b"a", b"b"], b"a"), "parameter_invalid: query must have one entry"),
        (request([b"a"], b"the " * 50), "text_too_long"),
        (request([b"a"], b"a", truncate=b"SIDEWAYS"), "parameter_invalid: truncate must be one of"),
    ],
)
def test_a_request_without_a_valid_item_fails(wordpiece: Path, asked: dict[str, Any], message: str) -> None:
    good = request([b"the cat"], b"sat")
    result, other = make_step(wordpiece).process([asked, good])
    assert isinstance(result, RequestError) and message in str(result)
    assert not isinstance(other, RequestError)
