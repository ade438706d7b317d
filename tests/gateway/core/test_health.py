"""When the service is ready, and what readiness costs the engine."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.core import health
from gateway.core.health import CANARY
from gateway.engine import Golden, GoldenScore, ServedModel
from gateway.settings import Settings
from gateway.types import TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, RANK_MODEL, TEXT_MODEL, FakeEngine, fake_score, fake_vector


def client_of(engine: FakeEngine, **settings: Any) -> httpx.AsyncClient:
    app = create_app(Settings(**settings), engine)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def ready(client: httpx.AsyncClient) -> bool:
    response = await client.get("/v1/health/ready")
    assert response.json()["ready"] is (response.status_code == 200)
    return response.status_code == 200


async def embed(client: httpx.AsyncClient, model: str = TEXT_MODEL.public_id) -> int:
    return (await client.post("/v1/embeddings", json={"model": model, "input": "a"})).status_code


async def test_every_model_is_probed_once_for_many_readiness_checks(engine: FakeEngine) -> None:
    async with client_of(engine, ready_ttl_s=60) as client:
        assert all(await asyncio.gather(*(ready(client) for _ in range(10))))
    assert [(batch.model, list(batch.items)) for batch in engine.batches] == [
        (TEXT_MODEL, [CANARY]),
        (IMAGE_MODEL, [CANARY]),
    ]


async def test_one_model_that_cannot_embed_makes_the_service_not_ready(engine: FakeEngine) -> None:
    def broken_for_images(item: object, input_type: str, size: int) -> np.ndarray:
        return np.full(size, np.nan if size == IMAGE_MODEL.dimensions else 0.1, np.float32)

    async with client_of(engine, ready_ttl_s=0) as client:
        assert await ready(client)
        engine.make_vector = broken_for_images
        assert not await ready(client)


async def test_an_engine_without_models_is_not_ready(engine: FakeEngine) -> None:
    engine.served = ()
    async with client_of(engine, ready_ttl_s=0) as client:
        assert not await ready(client)
        assert await embed(client) == 503


async def test_successful_requests_spare_the_canary(engine: FakeEngine) -> None:
    engine.served = (TEXT_MODEL,)
    async with client_of(engine, ready_ttl_s=60) as client:
        assert await embed(client) == 200
        assert await ready(client)
    assert len(engine.batches) == 1


async def test_a_failed_request_ends_readiness_at_once(engine: FakeEngine) -> None:
    engine.served = (replace(TEXT_MODEL),)
    async with client_of(engine, ready_ttl_s=60) as client:
        assert await ready(client)
        engine.embeds = False
        assert await embed(client) == 503
        assert not await ready(client)


@pytest.mark.parametrize("busy", [True, False])
async def test_a_late_canary_counts_only_if_no_request_succeeds_meanwhile(engine: FakeEngine, busy: bool) -> None:
    engine.served = (TEXT_MODEL,)
    engine.canary_delay_s = 30
    async with client_of(engine, ready_ttl_s=0, canary_timeout_s=0.2) as client:
        started_s = time.perf_counter()
        probe = asyncio.ensure_future(ready(client))
        await asyncio.sleep(0.05)
        if busy:
            assert await embed(client) == 200
        assert await probe is busy
        assert time.perf_counter() - started_s < 5


GOLDEN_TEXT = "A man is eating food."


def with_golden(model: ServedModel) -> ServedModel:
    vector = fake_vector(TextItem(GOLDEN_TEXT), "passage", model.dimensions)
    return replace(model, golden=Golden(GOLDEN_TEXT, vector.tobytes(), 0.9999))


def wrong_vector(item: object, input_type: str, size: int) -> np.ndarray:
    return np.full(size, size**-0.5, np.float32)


async def test_a_wrong_vector_is_said_and_its_model_is_refused_until_it_is_right_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "GOLDEN_INTERVAL_S", 0.0)
    engine.served = (with_golden(TEXT_MODEL), with_golden(IMAGE_MODEL))

    def wrong_for_texts(item: object, input_type: str, size: int) -> np.ndarray:
        right = size == IMAGE_MODEL.dimensions
        return fake_vector(item, input_type, size) if right else wrong_vector(item, input_type, size)  # type: ignore[arg-type]

    async with client_of(engine, ready_ttl_s=0) as client:
        assert await ready(client)
        assert await embed(client) == 200
        engine.make_vector = wrong_for_texts
        response = await client.get("/v1/health/ready")
        assert (response.status_code, response.json()["models"]) == (503, {TEXT_MODEL.public_id: "wrong vectors"})
        refused = await client.post("/v1/embeddings", json={"model": TEXT_MODEL.public_id, "input": "a"})
        assert refused.status_code == 503
        assert "returns wrong vectors at the moment" in refused.json()["message"]
        assert await embed(client, IMAGE_MODEL.public_id) == 200
        engine.make_vector = fake_vector
        assert await ready(client)
        assert await embed(client) == 200


async def test_a_wrong_score_is_said_and_its_model_is_refused(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "GOLDEN_INTERVAL_S", 0.0)
    score = fake_score(TextItem(GOLDEN_TEXT), "What is eaten?")
    engine.served = (replace(RANK_MODEL, golden=GoldenScore("What is eaten?", GOLDEN_TEXT, score, 1e-3)),)
    body = {"model": RANK_MODEL.public_id, "query": "a", "documents": ["b"]}
    async with client_of(engine, ready_ttl_s=0) as client:
        assert await ready(client)
        assert [batch.query for batch in engine.batches] == ["What is eaten?"]
        engine.make_score = lambda item, query: fake_score(item, query) + 1e-2
        response = await client.get("/v1/health/ready")
        assert (response.status_code, response.json()["models"]) == (503, {RANK_MODEL.public_id: "wrong scores"})
        refused = await client.post("/v2/rerank", json=body)
        assert (refused.status_code, "returns wrong scores" in refused.json()["message"]) == (503, True)
        engine.make_score = fake_score
        assert await ready(client)
        assert (await client.post("/v2/rerank", json=body)).status_code == 200


async def test_a_model_that_ranks_is_ready_without_a_golden_score(engine: FakeEngine) -> None:
    engine.served = (RANK_MODEL,)
    async with client_of(engine, ready_ttl_s=0) as client:
        assert await ready(client)


async def test_successful_requests_do_not_spare_the_golden_text_for_long(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.served = (with_golden(TEXT_MODEL),)
    monkeypatch.setattr(health, "GOLDEN_INTERVAL_S", 0.0)
    async with client_of(engine, ready_ttl_s=0) as client:
        assert await ready(client)
        engine.make_vector = wrong_vector
        assert await embed(client) == 200
        assert not await ready(client)


async def test_a_model_that_could_not_be_loaded_leaves_the_others_ready_and_is_named(engine: FakeEngine) -> None:
    engine.served = (TEXT_MODEL,)
    engine.unavailable = frozenset({"lost_model"})
    async with client_of(engine, ready_ttl_s=0) as client:
        response = await client.get("/v1/health/ready")
        assert response.status_code == 200
        assert response.json()["models"] == {"lost_model": "unavailable"}
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == [TEXT_MODEL.public_id]
        assert await embed(client, "org/lost-model") == 503


async def test_golden_embeddings_are_compared_without_anybody_asking(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "GOLDEN_INTERVAL_S", 0.01)
    engine.served = (with_golden(TEXT_MODEL),)
    engine.make_vector = wrong_vector
    app = create_app(Settings(ready_ttl_s=0), engine)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        for _ in range(500):
            if await embed(client) == 503:
                return
            await asyncio.sleep(0.01)
    pytest.fail("the wrong vector was never noticed")


@pytest.mark.parametrize(("scale", "matches"), [(1.0, True), (2.0, True), (0.0, False), (-1.0, False)])
def test_golden_is_compared_by_direction(scale: float, matches: bool) -> None:
    vector = fake_vector(TextItem("a"), "passage", 8)
    assert Golden("a", vector.tobytes(), 0.9999).matches(scale * vector) is matches
