"""Very long texts and long lists of token ids: what reaches the engine, and what it is charged for."""

import httpx
import pytest

from gateway.core.checks import check_length
from gateway.engine.chunking import SPECIAL_TOKENS, estimate_tokens
from gateway.errors import InvalidItemError, InvalidRequestError
from gateway.types import RequestItem, TextImageItem, TextItem, TokensItem, Truncate
from preprocess.items import Truncate as EngineTruncate
from preprocess.prompts import Prompt, PromptReader, count_read_chars
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine
from tests.gateway.requests import post
from tests.preprocess.sample_tokenizers import load

LIMIT = TEXT_MODEL.max_read_chars


@pytest.mark.parametrize("model", [TEXT_MODEL, IMAGE_MODEL])
def test_gateway_and_engine_agree_on_how_much_is_read(model: object) -> None:
    assert isinstance(model, type(TEXT_MODEL))
    assert model.max_read_chars == count_read_chars(model.max_tokens)


@pytest.mark.parametrize("text", ["The cat sat. " * 20_000, "It is 5. " + "生きる、猫。" * 20_000, "a" * 200_000])
@pytest.mark.parametrize("side", ["END", "START"])
@pytest.mark.parametrize("name", ["wordpiece", "byte_level"])
def test_the_engine_makes_the_same_of_what_is_sent_as_of_the_whole(name: str, side: Truncate, text: str) -> None:
    reader = PromptReader(load(name))
    sent = check_length(0, TextItem(text), TEXT_MODEL, side)
    assert isinstance(sent, TextItem) and len(sent.text) == LIMIT + 1
    prompts = [Prompt("", each, EngineTruncate(side), TEXT_MODEL.max_tokens) for each in (text, sent.text)]
    whole, cut = reader.read(prompts)
    assert str(whole) == str(cut)


@pytest.mark.parametrize("item", [TextItem("a" * LIMIT), TextImageItem("a" * LIMIT, b""), TokensItem([1] * LIMIT)])
@pytest.mark.parametrize("truncate", ["NONE", "END", "START"])
def test_items_up_to_the_limit_are_sent_as_they_are(item: RequestItem, truncate: Truncate) -> None:
    assert check_length(0, item, TEXT_MODEL, truncate) is item


def test_the_text_beside_an_image_is_cut_too() -> None:
    cut = check_length(0, TextImageItem("b" + "a" * 10_000_000, b"image"), IMAGE_MODEL, "END")
    assert cut == TextImageItem("b" + "a" * IMAGE_MODEL.max_read_chars, b"image")


def test_a_very_long_text_is_refused_without_truncation() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_length(3, TextItem("!" * 4_000_000), TEXT_MODEL, "NONE")
    assert refused.value.message == (
        f"input[3]: 4000000 characters exceed the limit of {LIMIT} for {TEXT_MODEL.max_tokens} tokens; truncate END or "
        "START cuts them"
    )


def test_too_many_token_ids_are_refused() -> None:
    with pytest.raises(InvalidItemError, match=rf"input\[1\] has {LIMIT + 1} token ids; the limit is {LIMIT}"):
        check_length(1, TokensItem([7] * (LIMIT + 1)), TEXT_MODEL, "END")


async def test_a_very_long_text_fails_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await post(client, input=["cat", "a" * 1_000_000], on_error="item")
    first, second = response.json()["data"]
    assert first["embedding"] and "1000000 characters exceed" in second["error"]["message"]
    assert [len(batch.items) for batch in engine.batches] == [1]


async def test_what_truncation_cuts_of_a_very_long_text_is_not_sent(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    response = await post(client, input="a" * 1_000_000, truncate="START")
    assert response.status_code == 200
    [item] = engine.batches[0].items
    assert isinstance(item, TextItem) and len(item.text) == IMAGE_MODEL.max_read_chars + 1


@pytest.mark.parametrize(
    ("text", "at_least", "at_most"),
    [
        ("The quick brown fox jumps over the lazy dog and runs away.", 12, 24),
        ("人人生而自由在尊严和权利上一律平等", 17, 25),
        ("Съешь же ещё этих мягких французских булок", 20, 40),
    ],
)
def test_short_texts_cost_about_their_tokens(text: str, at_least: int, at_most: int) -> None:
    assert at_least <= estimate_tokens(TextItem(text), TEXT_MODEL) <= at_most + SPECIAL_TOKENS


def test_a_long_text_costs_its_tokens_and_its_bytes() -> None:
    costs = [estimate_tokens(TextItem("a" * size), TEXT_MODEL) for size in (1000, 30_000, 65_000)]
    assert costs == sorted(set(costs))
    assert costs[-1] - TEXT_MODEL.max_tokens >= 65_000 // 64
    assert estimate_tokens(TextItem("人" * 65_000), TEXT_MODEL) > 2 * costs[-1]
    assert estimate_tokens(TokensItem([1] * 65_000), TEXT_MODEL) > 2 * costs[-1]
