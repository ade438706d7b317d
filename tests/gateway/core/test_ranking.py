"""Rankings by the service, whatever dialect they came in."""

import math
from typing import Any

import pytest

from gateway.access import OpenAccess
from gateway.app import build_services
from gateway.core.service import InferenceService
from gateway.engine import ItemFailure
from gateway.errors import FingerprintError, InvalidRequestError
from gateway.fetch import build_fetcher
from gateway.settings import Settings
from gateway.types import Deadline, FailedItem, ImageItem, RankingRequest, TextItem
from tests.gateway.fake_engine import IMAGE_RANK_MODEL, RANK_MODEL, FakeEngine, fake_score

QUERY = "Which animal is loyal?"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(served=(RANK_MODEL,))


@pytest.fixture
def service(engine: FakeEngine) -> InferenceService:
    settings = Settings(image_urls="off")
    return build_services(settings, engine, build_fetcher(settings), OpenAccess()).inference


def make_request(*items: Any, **options: Any) -> RankingRequest:
    return RankingRequest(**{"model": "", "query": QUERY, "items": items} | options)


async def test_scores_are_in_the_order_of_the_items(service: InferenceService) -> None:
    items = [TextItem(text) for text in "abc"]
    result = await service.rank(make_request(*items), Deadline.after(5))
    assert result.scores.tolist() == pytest.approx([fake_score(item, QUERY) for item in items], abs=1e-6)
    assert result.stage_s.keys() == {"admission", "inference"}
    assert (result.model, result.usage.total_tokens) == (RANK_MODEL, 3 * (2 + len(QUERY.split())))


async def test_items_that_fail_have_no_score_if_errors_are_isolated(
    service: InferenceService, engine: FakeEngine
) -> None:
    engine.fail_item = lambda item: ItemFailure("text_too_long", "it is") if item == TextItem("b") else None
    items = [TextItem("a"), TextItem("b"), FailedItem(InvalidRequestError("bad")), ImageItem(b"png"), TextItem("c")]
    result = await service.rank(make_request(*items, isolate_errors=True), Deadline.after(5))
    assert [math.isnan(score) for score in result.scores.tolist()] == [False, True, True, True, False]
    assert {index: error.message for index, error in result.errors.items()} == {
        1: "input[1]: it is",
        2: "bad",
        3: "input[3] has an image, and the model takes text only",
    }


async def test_a_request_all_of_whose_items_had_failed_does_not_reach_the_engine(
    service: InferenceService, engine: FakeEngine
) -> None:
    request = make_request(FailedItem(InvalidRequestError("bad")), isolate_errors=True)
    result = await service.rank(request, Deadline.after(5))
    assert (len(result.scores), result.stage_s, list(result.errors)) == (1, {}, [0])
    assert not engine.batches


async def test_the_query_counts_with_every_item(service: InferenceService, engine: FakeEngine) -> None:
    costs = []
    for query in ("a", "a" * 400):
        await service.rank(make_request(TextItem("b"), TextItem("c"), query=query), Deadline.after(5))
        costs.append(sum(engine.batches[-1].item_tokens))
    assert costs[1] - costs[0] >= 2 * (400 // 4)


async def test_images_are_ranked_by_the_query(service: InferenceService, engine: FakeEngine) -> None:
    engine.served = (IMAGE_RANK_MODEL,)
    result = await service.rank(make_request(ImageItem(b"png")), Deadline.after(5))
    assert result.scores.tolist() == pytest.approx([fake_score(ImageItem(b"png"), QUERY)], abs=1e-6)
    assert result.usage.tiles == 1


async def test_scores_of_other_weights_than_expected_are_refused(service: InferenceService) -> None:
    with pytest.raises(FingerprintError):
        await service.rank(make_request(TextItem("a"), fingerprint="f00"), Deadline.after(5))
