"""How batches are cut, and that no result is lost or swapped."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine import EmbedBatch, EmbedResult, ItemFailure
from gateway.engine.chunking import Chunk, cut_batch, cut_list, estimate_tokens, merge_results
from gateway.types import ImageItem, Item, TextImageItem, TextItem, TokensItem
from tests.gateway.engine.batches import make_batch
from tests.gateway.fake_engine import IMAGE_MODEL


@given(st.lists(st.integers(0, 50)), st.integers(1, 8), st.integers(1, 60))
def test_pieces_cover_the_list_in_order_within_limits(costs: list[int], max_items: int, max_cost: int) -> None:
    pieces = cut_list(costs, max_items=max_items, max_cost=max_cost)
    assert [index for piece in pieces for index in piece] == list(range(len(costs)))
    for piece in pieces:
        assert 1 <= len(piece) <= max_items
        assert len(piece) == 1 or sum(costs[index] for index in piece) <= max_cost


def batch_of(*items: Item) -> EmbedBatch:
    return make_batch(IMAGE_MODEL, *items)


def test_items_go_to_the_ensemble_of_their_modality() -> None:
    batch = batch_of(TextItem("a"), ImageItem(b"b"), TokensItem([1]), TextImageItem("c", b"d"))
    chunks = cut_batch(batch, max_items=32, max_tokens=100_000)
    assert chunks == [Chunk("text", [0, 2]), Chunk("image", [1, 3])]


def test_a_costly_item_goes_alone() -> None:
    chunks = cut_batch(batch_of(TextItem("a"), TextItem("b" * 4000), TextItem("c")), max_items=32, max_tokens=500)
    assert [list(chunk.indices) for chunk in chunks] == [[0], [1], [2]]


def test_a_text_costs_the_padding_that_its_model_attends_to() -> None:
    padded = replace(IMAGE_MODEL, max_tokens=64, padded_tokens=64)
    for item in (TextItem("a"), TextItem("a" * 63), TokensItem([1, 2])):
        assert estimate_tokens(item, padded) == 64
    assert estimate_tokens(TextItem("a"), IMAGE_MODEL) < 10


@pytest.mark.parametrize("item", [ImageItem(b"x"), TextImageItem("", b"x")])
def test_images_cost_all_the_tiles_they_may_have(item: Item) -> None:
    chunks = cut_batch(batch_of(item, item, item), max_items=32, max_tokens=2 * 7 * 256 + 20)
    assert [list(chunk.indices) for chunk in chunks] == [[0, 1], [2]]


def test_results_return_to_the_indices_of_their_items() -> None:
    def answer(*values: int) -> EmbedResult:
        counts = np.array(values, np.int32)
        return EmbedResult(
            np.array([[value] * 2 for value in values], np.float32), counts, counts + 5, counts + 10, counts + 20, {}
        )

    failed = replace(answer(3), failures={0: ItemFailure("c", "m")})
    merged = merge_results(
        [Chunk("text", [0, 2]), Chunk("text", [4]), Chunk("image", [1]), Chunk("image", [3])],
        [answer(0, 2), answer(4), answer(1), failed],
        5,
        2,
    )
    np.testing.assert_array_equal(merged.embeddings[:, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(merged.token_counts, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(merged.untruncated_token_counts, [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(merged.image_token_counts, [10, 11, 12, 13, 14])
    np.testing.assert_array_equal(merged.tile_counts, [20, 21, 22, 23, 24])
    assert merged.failures == {3: ItemFailure("c", "m")}
