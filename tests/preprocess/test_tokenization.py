from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from preprocess.items import InputType, ItemError, TextItem, TokenIdPolicy, TokenSequence, TokensItem, Truncate
from preprocess.settings import ImageLimits, ImageSettings, TextSettings, Tiling
from preprocess.tokenization import ImagePrompter, TextTokenizer

IMAGE_TOKEN = "<IMG_CONTEXT>"


def make_settings(limit: int = 1000, prefixed: bool = False, image_token_id: int | None = None) -> TextSettings:
    return TextSettings(
        query_prefix="query: " if prefixed else "",
        passage_prefix="passage: " if prefixed else "",
        max_query_tokens=limit,
        max_passage_tokens=limit,
        vocab_size=258,
        image_token_id=image_token_id,
        image_embeds_dim=0 if image_token_id is None else 8,
    )


def text(value: str, input_type: InputType = InputType.PASSAGE, truncate: Truncate = Truncate.NONE) -> TextItem:
    return TextItem(value, input_type, truncate)


def ids_of(encoded: Sequence[TokenSequence | ItemError]) -> list[list[int]]:
    """Return the token ids of items that must not fail."""
    sequences = [each.ids for each in encoded if isinstance(each, TokenSequence)]
    assert len(sequences) == len(encoded), encoded
    return sequences


def test_ids_equal_the_reference_tokenizers(wordpiece: Path) -> None:
    reference = Tokenizer.from_file(str(wordpiece))
    texts = ["the cat sat on a mat", "", "a", "What is THE cat?", "xyz " * 50]
    encoded = TextTokenizer(wordpiece, make_settings()).encode([text(value) for value in texts])
    assert ids_of(encoded) == [reference.encode(value).ids for value in texts]


def test_prefix_follows_the_input_type(byte_level: Path) -> None:
    tokenizer = TextTokenizer(byte_level, make_settings(prefixed=True))
    query, passage = ids_of(tokenizer.encode([text("cat", InputType.QUERY), text("cat")]))
    assert tokenizer.tokenizer.decode(query) == "query: cat"
    assert tokenizer.tokenizer.decode(passage) == "passage: cat"


@pytest.mark.parametrize("literal", ["[CLS]", "[SEP] cat [CLS]", "[UNK]"])
def test_special_tokens_in_a_text_stay_text(wordpiece: Path, literal: str) -> None:
    [ids] = ids_of(TextTokenizer(wordpiece, make_settings()).encode([text(literal)]))
    assert ids[0] == 1 and ids[-1] == 2
    assert not {0, 1, 2} & set(ids[1:-1])


@pytest.mark.parametrize("literal", [IMAGE_TOKEN, "<bos>", f"a{IMAGE_TOKEN}{IMAGE_TOKEN}b", "<img>"])
def test_image_placeholders_in_a_text_stay_text(byte_level: Path, literal: str) -> None:
    [ids] = ids_of(TextTokenizer(byte_level, make_settings(image_token_id=257)).encode([text(literal)]))
    assert ids[0] == 256 and max(ids[1:]) < 256
    assert len(ids) == 1 + len(literal.encode())


def test_a_text_above_the_limit_is_refused_alone(wordpiece: Path) -> None:
    ok, refused, also_ok = TextTokenizer(wordpiece, make_settings(limit=8)).encode(
        [text("the cat sat on a mat"), text("the cat sat on a mat it"), text("cat")]
    )
    assert isinstance(refused, ItemError)
    assert str(refused).startswith("text_too_long: 9 tokens exceed the limit of 8")
    assert [len(ids) for ids in ids_of([ok, also_ok])] == [8, 3]


@pytest.mark.parametrize(
    ("truncate", "kept"), [(Truncate.END, "query: the cat"), (Truncate.START, "query: a mat")], ids=["end", "start"]
)
def test_truncation_keeps_specials_and_prefix(wordpiece: Path, truncate: Truncate, kept: str) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=6, prefixed=True))
    item = text("the cat sat on a mat", InputType.QUERY, truncate)
    assert ids_of(tokenizer.encode([item])) == [tokenizer.tokenizer.encode(kept).ids]


def test_tokens_are_counted_before_truncation(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=6, prefixed=True))
    value = "the cat sat on a mat"
    ids = tokenizer.tokenizer.encode(value).ids
    items: list[TextItem | TokensItem] = [
        text(value, InputType.QUERY, Truncate.END),
        TokensItem(ids, InputType.QUERY, Truncate.START),
        text("cat", InputType.QUERY, Truncate.END),
    ]
    encoded = tokenizer.encode(items)
    assert [len(ids) for ids in ids_of(encoded)] == [6, 6, 5]
    assert [each.untruncated_count for each in encoded if isinstance(each, TokenSequence)] == [10, 10, 5]


def test_token_ids_equal_their_text_with_or_without_special_tokens(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings())
    whole = tokenizer.tokenizer.encode("the cat sat").ids
    for ids in (whole, whole[1:-1]):
        assert ids_of(tokenizer.encode([TokensItem(ids, InputType.PASSAGE, Truncate.NONE)])) == [whole]


@pytest.mark.parametrize("prompt", ["What is it?", "query: What is it?"])
def test_token_ids_get_the_prefix_unless_they_have_it(byte_level: Path, prompt: str) -> None:
    tokenizer = TextTokenizer(byte_level, make_settings(prefixed=True))
    ids = tokenizer.tokenizer.encode(prompt, add_special_tokens=False).ids
    assert tokenizer.encode([TokensItem(ids, InputType.QUERY, Truncate.NONE)]) == tokenizer.encode(
        [text("What is it?", InputType.QUERY)]
    )


@pytest.mark.parametrize("policy", list(TokenIdPolicy))
@pytest.mark.parametrize("bad_id", [-1, 258, 257], ids=["negative", "above", "image token"])
def test_token_ids_outside_the_vocabulary_are_refused(byte_level: Path, bad_id: int, policy: TokenIdPolicy) -> None:
    tokenizer = TextTokenizer(byte_level, make_settings(image_token_id=257))
    [refused] = tokenizer.encode([TokensItem([65, bad_id], InputType.PASSAGE, Truncate.NONE, policy)])
    assert isinstance(refused, ItemError) and refused.code == "token_id_invalid"


def test_token_ids_of_another_tokenizer_are_refused_with_the_remedy(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings())
    own = tokenizer.tokenizer.encode("the cat sat").ids
    foreign = [tokenizer.tokenizer.token_to_id(token) for token in ("the", "##c", "##a", "##t", "c", "##a", "##t")]
    items = [TokensItem(ids, InputType.PASSAGE, Truncate.NONE) for ids in (own, foreign, [5, 9999])]
    accepted, refused, outside = tokenizer.encode(items)
    assert ids_of([accepted]) == [own]
    for error in (refused, outside):
        assert isinstance(error, ItemError)
        assert str(error) == (
            "token_id_invalid: these token ids do not come from this model's tokenizer; send text instead "
            "(LangChain: check_embedding_ctx_length=False)"
        )
        assert len(str(error)) < 200


def test_token_ids_of_another_tokenizer_are_accepted_on_request(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings())
    ids = [tokenizer.tokenizer.token_to_id(token) for token in ("the", "##c", "##a", "##t", "c", "##a", "##t")]
    [encoded] = ids_of(tokenizer.encode([TokensItem(ids, InputType.PASSAGE, Truncate.NONE, TokenIdPolicy.ANY)]))
    assert encoded[1:-1] == ids


def test_token_ids_are_refused_where_they_cannot_be_checked(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, replace(make_settings(), token_ids_round_trip=False))
    ids = tokenizer.tokenizer.encode("the cat").ids
    refused, accepted = tokenizer.encode(
        [TokensItem(ids, InputType.PASSAGE, Truncate.NONE, policy) for policy in TokenIdPolicy]
    )
    assert isinstance(refused, ItemError) and refused.code == "token_id_invalid"
    assert "GATEWAY_TOKEN_IDS=any" in refused.message and len(str(refused)) < 200
    assert ids_of([accepted]) == [ids]


@pytest.mark.parametrize("truncate", list(Truncate))
def test_the_count_of_many_token_ids_is_exact(wordpiece: Path, truncate: Truncate) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=6))
    whole = tokenizer.tokenizer.encode("the cat sat on a mat " * 5000).ids
    [encoded] = tokenizer.encode([TokensItem(whole, InputType.PASSAGE, truncate)])
    if truncate is Truncate.NONE:
        assert str(encoded).startswith("text_too_long: 30002 tokens exceed the limit of 6")
        return
    assert isinstance(encoded, TokenSequence) and encoded.untruncated_count == 30_002
    assert encoded.ids == [*whole[:5], whole[-1]] if truncate is Truncate.END else [whole[0], *whole[-5:]]


@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
def test_many_token_ids_without_the_prefix_equal_their_text(wordpiece: Path, truncate: Truncate) -> None:
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=12, prefixed=True))
    value = "the cat sat on a mat " * 500
    ids = tokenizer.tokenizer.encode(value, add_special_tokens=False).ids
    given, written = tokenizer.encode(
        [TokensItem(ids, InputType.PASSAGE, truncate), text(value, InputType.PASSAGE, truncate)]
    )
    assert given == written


def test_only_token_ids_that_may_be_kept_are_decoded(wordpiece: Path) -> None:
    """Checking all of these would decode each one alone."""
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=6))
    decoded: list[int] = []
    decode = tokenizer.round_trip.decode
    tokenizer.round_trip.decode = lambda ids: decoded.append(len(ids)) or decode(ids)  # type: ignore[method-assign, func-returns-value]
    ids = [tokenizer.tokenizer.token_to_id("##/")] * 10_000
    tokenizer.encode([TokensItem(ids, InputType.PASSAGE, Truncate.END)])
    assert sum(decoded) < 1000


@pytest.fixture
def prompter(byte_level: Path) -> ImagePrompter:
    image = ImageSettings("<img>", "</img> ", Tiling(), ImageLimits(), decode_workers=1)
    return ImagePrompter(TextTokenizer(byte_level, make_settings(60, prefixed=True, image_token_id=257)), image)


def test_image_prompt_has_image_tokens_for_the_image_alone(prompter: ImagePrompter) -> None:
    [ids] = ids_of(prompter.encode([f"a {IMAGE_TOKEN}"], [4], Truncate.NONE))
    assert ids[: ids.index(257)] == prompter.text.tokenizer.encode("passage: <img>").ids
    assert ids.count(257) == 4
    after = prompter.text.tokenizer.encode(f"</img> a {IMAGE_TOKEN}", add_special_tokens=False).ids
    assert ids[ids.index(257) + 4 :] == after and 257 not in after


@pytest.mark.parametrize(
    ("truncate", "kept"), [(Truncate.END, "</img> 0123456789"), (Truncate.START, "</img>bcdefghijkl")]
)
def test_image_prompt_cuts_text_and_never_image_tokens(prompter: ImagePrompter, truncate: Truncate, kept: str) -> None:
    # 15 tokens before, 28 image tokens, 17 left of 60
    [encoded] = prompter.encode(["0123456789abcdefghijkl"], [28], truncate)
    [ids] = ids_of([encoded])
    assert len(ids) == 60 and ids.count(257) == 28
    assert isinstance(encoded, TokenSequence) and encoded.untruncated_count == 15 + 28 + 29
    assert prompter.text.tokenizer.decode(ids[-17:]) == kept


@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
def test_a_very_long_text_beside_an_image_is_cut_like_a_shorter_one(
    prompter: ImagePrompter, truncate: Truncate
) -> None:
    sentence = "The cat sat on a mat. "
    texts = [sentence * 10, sentence * 10_000]
    assert len(set(map(tuple, ids_of(prompter.encode(texts, [4, 4], truncate))))) == 1


@pytest.mark.parametrize("truncate", list(Truncate))
def test_image_tokens_above_the_limit_are_refused_with_any_truncation(
    prompter: ImagePrompter, truncate: Truncate
) -> None:
    [refused] = prompter.encode(["text"], [50], truncate)
    assert isinstance(refused, ItemError) and refused.code == "text_too_long"


PROMPT = "task: [CLS] <bos> | query: "


def test_a_prompt_takes_the_place_of_the_prefix_and_its_special_tokens_stay_text(byte_level: Path) -> None:
    tokenizer = TextTokenizer(byte_level, make_settings(prefixed=True))
    plain = TextTokenizer(byte_level, make_settings())
    for input_type in InputType:
        [ids] = ids_of(tokenizer.encode([TextItem("cat", input_type, Truncate.NONE, PROMPT)]))
        assert [ids] == ids_of(plain.encode([text(PROMPT + "cat")]))
    [ids] = ids_of(tokenizer.encode([TextItem("cat", InputType.QUERY, Truncate.NONE, "")]))
    assert [ids] == ids_of(plain.encode([text("cat")]))
    [cat] = ids_of(plain.encode([text("cat")]))
    tokens = TokensItem(cat, InputType.PASSAGE, Truncate.NONE, TokenIdPolicy.ANY, PROMPT)
    assert ids_of(tokenizer.encode([tokens])) == ids_of(plain.encode([text(PROMPT + "cat")]))


@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
def test_a_prompt_is_not_cut_and_one_that_leaves_no_room_is_refused(byte_level: Path, truncate: Truncate) -> None:
    tokenizer = TextTokenizer(byte_level, make_settings(limit=40))
    [ids] = ids_of(tokenizer.encode([TextItem("a cat sat " * 20, InputType.QUERY, truncate, PROMPT)]))
    assert len(ids) == 40 and tokenizer.tokenizer.decode(ids).startswith(PROMPT.rstrip())
    [error] = tokenizer.encode([TextItem("cat", InputType.QUERY, truncate, 3 * PROMPT)])
    assert isinstance(error, ItemError) and error.code == "text_too_long"


def test_padding_around_token_ids_is_removed_before_they_are_read(wordpiece: Path) -> None:
    padded = Tokenizer.from_file(str(wordpiece))
    padded.enable_padding(length=12, pad_id=0, pad_token="[PAD]")
    padded.save(str(wordpiece))
    given = padded.encode("the cat sat").ids
    assert len(given) == 12
    tokenizer = TextTokenizer(wordpiece, make_settings(limit=12))
    ends = len(given) - given.count(0)
    items = [TokensItem(ids, InputType.PASSAGE, Truncate.NONE) for ids in (given, given[:ends], given[: ends + 2])]
    sequences = tokenizer.encode(items)
    assert ids_of(sequences) == [given] * 3
    assert {sequence.padding for sequence in sequences if isinstance(sequence, TokenSequence)} == {given.count(0)}


def test_a_tokenizer_that_pads_to_the_longest_of_a_batch_adds_nothing(wordpiece: Path) -> None:
    padded = Tokenizer.from_file(str(wordpiece))
    padded.enable_padding(pad_id=0, pad_token="[PAD]")
    padded.save(str(wordpiece))
    short, long = ids_of(TextTokenizer(wordpiece, make_settings()).encode([text("cat"), text("the cat sat on a mat")]))
    assert len(short) < len(long)
