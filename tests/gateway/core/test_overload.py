"""Overload: which requests wait, which are refused, and that images do not hold up texts."""

import asyncio
import time

import httpx
import pytest

from gateway.settings import Settings
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.requests import DATA_URL, post


@pytest.fixture
def settings() -> Settings:
    return Settings(max_text_tokens_in_flight=10, max_image_tokens_in_flight=1792, max_queue_s=0.7)


async def test_excess_requests_queue_or_are_refused_at_once(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay_s = 0.3
    await asyncio.gather(*(post(client, input="a" * 16) for _ in range(6)))  # from which the gate learns its speed
    accepted = [asyncio.ensure_future(post(client, input="a" * 16)) for _ in range(5)]
    await asyncio.sleep(0.1)
    started_s = time.perf_counter()
    refused = await post(client, input="a" * 16)
    assert time.perf_counter() - started_s < 0.05
    assert (refused.status_code, refused.json()["type"]) == (503, "overloaded_error")
    assert int(refused.headers["retry-after"]) >= 1
    answers = await asyncio.gather(*accepted)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert max(float(answer.headers["x-queue-time"]) for answer in answers) > 200
    assert (await post(client, input="a" * 16)).status_code == 200


async def test_images_have_a_gate_of_their_own(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay_s = 0.3
    await asyncio.gather(*(post(client, input=DATA_URL) for _ in range(4)))
    pages = [asyncio.ensure_future(post(client, input=DATA_URL)) for _ in range(8)]
    await asyncio.sleep(0.1)
    text = await post(client, input="a")
    assert text.status_code == 200
    assert float(text.headers["x-queue-time"]) == pytest.approx(0, abs=20)
    statuses = [page.status_code for page in await asyncio.gather(*pages)]
    assert set(statuses) == {200, 503}
