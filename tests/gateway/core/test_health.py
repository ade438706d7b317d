"""When the service is ready, and what readiness costs the engine."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.core.health import CANARY
from gateway.settings import Settings
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine


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
