"""Overload: which requests wait, which are refused, and that images do not hold up texts."""

import asyncio
import base64
import time
from io import BytesIO

import httpx
import pytest
from PIL import Image

from gateway.app import create_app
from gateway.core.admission import AdmissionGate, Ticket
from gateway.settings import Settings
from gateway.types import Client, Deadline
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
    assert time.perf_counter() - started_s < 0.5
    assert (refused.status_code, refused.json()["type"]) == (503, "overloaded_error")
    assert int(refused.headers["retry-after"]) >= 1
    answers = await asyncio.gather(*accepted)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert max(float(answer.headers["x-queue-time"]) for answer in answers) > 200
    assert (await post(client, input="a" * 16)).status_code == 200


async def test_all_addresses_of_an_ipv6_network_share_a_share(
    settings: Settings, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, names = AdmissionGate.admit, []

    def note(gate: AdmissionGate, client: Client, cost: int, deadline: Deadline | None = None) -> Ticket:
        names.append(client.name)
        return admit(gate, client, cost, deadline)

    monkeypatch.setattr(AdmissionGate, "admit", note)
    app = create_app(settings, engine)
    async with app.router.lifespan_context(app):
        for address in ("2600:1:2:3::4", "2600:1:2:3:4::5", "1.2.3.4"):
            transport = httpx.ASGITransport(app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                assert (await post(client, input="a")).status_code == 200
    assert names == ["2600:1:2:3::/64", "2600:1:2:3::/64", "1.2.3.4"]


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


def data_url(size: tuple[int, int]) -> str:
    file = BytesIO()
    Image.new("1", size).save(file, "WEBP", lossless=True, quality=0, method=0)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


LARGEST = data_url((16383, 8192))
"""40 bytes whose decoding takes about 6 s."""


async def test_large_images_do_not_hold_up_small_ones(engine: FakeEngine) -> None:
    engine.delay_s = 0.5
    transport = httpx.ASGITransport(create_app(Settings(), engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        large = [asyncio.ensure_future(post(client, input=LARGEST)) for _ in range(3)]
        await asyncio.sleep(0.1)
        small = await post(client, input=data_url((64, 64)))
        assert small.status_code == 200
        assert not all(one.done() for one in large)
        assert float(small.headers["x-queue-time"]) < 200
        assert [answer.status_code for answer in await asyncio.gather(*large)] == [200, 200, 200]
        assert max(float(one.result().headers["x-queue-time"]) for one in large) > 300


async def test_pixels_above_the_limit_of_a_request_are_refused_unseen(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    refused = await post(client, input=[LARGEST] * 24)
    assert (refused.status_code, engine.batches) == (413, [])
    assert refused.json()["message"] == (
        "the images of a request may have 536870912 pixels in all; these have 3221028864"
    )
    assert (await post(client, input=[LARGEST] * 4)).status_code == 200


async def test_an_image_above_the_limit_of_pixels_fails_alone(engine: FakeEngine) -> None:
    transport = httpx.ASGITransport(create_app(Settings(max_image_pixels=100), engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        images = [data_url((10, 10)), data_url((10, 11))]
        refused = await post(client, input=images)
        message = "input[1]: the image has 10x11 pixels, more than the limit of 100"
        assert (refused.status_code, refused.json()["message"]) == (413, message)
        isolated = (await post(client, input=images, on_error="item")).json()["data"]
        assert isolated[0]["embedding"] and isolated[1]["error"]["message"] == message
