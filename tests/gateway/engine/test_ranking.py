"""Rankings by the Triton engine, against a gRPC server that speaks Triton's protocol."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from gateway.engine import EmbedResult, GoldenScore, ItemFailure
from gateway.engine.discovery import read_slug
from gateway.engine.triton import TritonEngine
from gateway.errors import EngineFaultError
from gateway.types import ImageItem, Item, TextImageItem, TextItem
from tests.gateway.engine.batches import make_batch
from tests.gateway.engine.fake_triton import (
    PUBLIC_ID,
    FakeTriton,
    ensemble_config,
    item_score,
    rank_config,
    read_inputs,
    step_config,
)

QUERY = "what is it?"
GOLDEN = {"query": "q", "text": "t", "score": -1.5, "max_abs_error": 0.01}


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton(
        configs=[
            rank_config("vl_rank", "text"),
            rank_config("vl_rank_image", "image"),
            step_config("vl_preprocess_rank"),
            step_config("vl_reranker"),
        ]
    )


async def rank(engine: TritonEngine, *items: Item, query: str = QUERY) -> EmbedResult:
    return await engine.embed(make_batch((await engine.models())[PUBLIC_ID], *items, query=query))


async def test_a_model_that_ranks_is_read_from_its_parameters(engine: TritonEngine) -> None:
    (model,) = (await engine.models()).values()
    assert (model.public_id, model.task, model.dimensions, model.max_tokens) == (PUBLIC_ID, "rank", 1, 100)
    assert (model.takes_images, model.takes_pdfs, model.golden) == (True, True, None)


@pytest.mark.parametrize(
    ("changes", "is_served"),
    [
        ({}, True),
        ({"golden": json.dumps(GOLDEN)}, True),
        ({"golden": json.dumps(GOLDEN | {"score": "high"})}, False),
        ({"golden": json.dumps({"text": "t"})}, False),
        ({"max_tokens": ""}, False),
        ({"task": "guess"}, False),
    ],
)
async def test_models_that_break_the_contract_are_left_out(
    engine: TritonEngine, triton: FakeTriton, changes: dict[str, str], is_served: bool
) -> None:
    triton.configs = [rank_config("vl_rank", "text", **changes)]
    models = await engine.models(refresh=True)
    assert bool(models) is is_served
    if "golden" in changes and is_served:
        assert models[PUBLIC_ID].golden == GoldenScore("q", "t", -1.5, 0.01)


async def test_a_reranker_of_which_an_ensemble_is_not_loaded_is_unavailable(
    engine: TritonEngine, triton: FakeTriton
) -> None:
    triton.configs.append(ensemble_config("other_text", "text", public_id="org/other"))
    triton.not_loaded = frozenset({"vl_rank_image"})
    assert (await engine.models(refresh=True)).keys() == {"org/other"}
    assert engine.unavailable_models() == {PUBLIC_ID}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("vl_rank", "vl"),
        ("vl_rank_image", "vl"),
        ("vl_text", "vl"),
        ("rank_rank", "rank"),
        ("vl_preprocess_rank", ""),
        ("vl_preprocess_rank_image", ""),
        ("vl_preprocess_image", ""),
        ("vl_reranker", ""),
    ],
)
def test_ensembles_that_rank_are_told_from_steps(name: str, slug: str) -> None:
    assert read_slug(name) == slug


async def test_scores_keep_the_order_over_chunks_and_ensembles(engine: TritonEngine, triton: FakeTriton) -> None:
    items: list[Item] = [TextItem(f"text {number}") for number in range(6)]
    items[1:1] = [ImageItem(b"png"), TextImageItem("caption", b"jpg")]
    result = await rank(engine, *items)
    texts = [getattr(item, "text", "").encode() for item in items]
    images = [getattr(item, "file", b"") for item in items]
    expected = [item_score(QUERY.encode(), text, image) for text, image in zip(texts, images, strict=True)]
    np.testing.assert_array_equal(result.embeddings[:, 0], np.array(expected, np.float32))
    requests = [read_inputs(request) for request in triton.requests]
    assert [inputs["query"] for inputs in requests] == [[QUERY.encode()]] * 3
    assert sorted(request.model_name for request in triton.requests) == ["vl_rank", "vl_rank", "vl_rank_image"]


async def test_only_what_the_ensemble_takes_is_sent(engine: TritonEngine, triton: FakeTriton) -> None:
    batch = make_batch((await engine.models())[PUBLIC_ID], TextItem("a"), query=QUERY, truncate="END")
    await engine.embed(replace(batch, check_token_ids=False))
    [request] = triton.requests
    assert {tensor.name for tensor in request.inputs} == {"query", "text", "truncate"}


async def test_only_small_requests_with_the_same_query_share_an_inference_request(
    engine: TritonEngine, triton: FakeTriton
) -> None:
    await engine.models()
    results = await asyncio.gather(
        *(rank(engine, TextItem(text), query=query) for text, query in [("a", "x"), ("b", "x"), ("a", "y")])
    )
    assert [float(result.embeddings[0, 0]) for result in results] == [
        pytest.approx(item_score(query, text, b"")) for text, query in [(b"a", b"x"), (b"b", b"x"), (b"a", b"y")]
    ]
    assert len(triton.requests) == 2


async def test_failed_items_have_no_score(engine: TritonEngine) -> None:
    result = await rank(engine, TextItem("a"), TextItem("long"))
    assert result.failures == {1: ItemFailure("text_too_long", "it is")}
    assert np.isnan(result.embeddings[:, 0]).tolist() == [False, True]


async def test_pages_are_counted_with_the_query(engine: TritonEngine, triton: FakeTriton) -> None:
    batch = make_batch((await engine.models())[PUBLIC_ID], ImageItem(b"pdf", page=1), query=QUERY)
    assert (await engine.tokenize(batch)).page_counts.tolist() == [7]
    assert read_inputs(triton.requests[0])["query"] == [QUERY.encode()]


async def test_missing_scores_are_a_fault(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.outputs_left_out = frozenset({"scores"})
    with pytest.raises(EngineFaultError):
        await rank(engine, TextItem("a"))
