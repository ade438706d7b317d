"""A flood of small requests is refused at the edge, as the application would refuse it, and nobody else's are."""

import asyncio
from collections import Counter

import httpx
import pytest

from gateway.api.context import Dialect, Refusal
from gateway.core.admission import Admission
from gateway.core.metrics import Metrics
from gateway.edge.headers import identify
from gateway.edge.refusals import MAX_CLIENTS, RecentRefusal, RecentRefusals
from gateway.errors import OverloadedError
from gateway.settings import Settings
from gateway.types import TextItem
from tests.gateway.edge.conftest import StartVictim
from tests.gateway.fake_engine import TEXT_MODEL, fake_vector

URL = b"/v1/embeddings"
HEADERS = [(b"host", b"a"), (b"content-length", b"30")]
BODY = b'{"model": "m", "input": "a text"}'
HOLD_S = 0.1
"""With the settings below."""


@pytest.fixture
def refusals() -> RecentRefusals:
    settings = Settings(max_queue_s=1)
    return RecentRefusals(settings, Metrics(Admission(settings)))


def refuse(refusals: RecentRefusals, model: str = "m", address: str = "1.2.3.4", body: bytes = BODY) -> None:
    refusal = Refusal(OverloadedError("full", retry_after_s=1.0), model, "/v1/embeddings", Dialect("openai"))
    refusals.note(identify(address, URL, HEADERS) or (), refusal, len(body))


def find(refusals: RecentRefusals, address: str = "1.2.3.4", headers: list[tuple[bytes, bytes]] = HEADERS) -> bool:
    return refusals.find(address, URL, headers) is not None


async def test_what_was_refused_is_refused_again_to_the_same_client_on_the_same_route(refusals: RecentRefusals) -> None:
    assert not find(refusals)
    refuse(refusals)
    assert find(refusals)
    assert not find(refusals, "1.2.3.5")
    assert not find(refusals, headers=[*HEADERS, (b"authorization", b"Bearer other")])
    assert not find(refusals, headers=[*HEADERS, (b"x-forwarded-for", b"9.9.9.9")])
    assert refusals.find("1.2.3.4", b"/v2/embed", HEADERS) is None


@pytest.mark.parametrize(
    "line", [(b"origin", b"https://a"), (b"transfer-encoding", b"chunked"), (b"content-length", b"123456")]
)
async def test_requests_that_need_more_are_left_to_the_application(
    refusals: RecentRefusals, line: tuple[bytes, bytes]
) -> None:
    refuse(refusals)
    assert not find(refusals, headers=[line, *HEADERS])


@pytest.mark.parametrize(
    ("model", "body", "holds"),
    [
        ("m", BODY, True),
        ("m", b'{"model": "m", "input": "a longer text"}', True),
        ("m", b'{"model": "m", "input": ""}', False),
        ("m", b'{"model": "other", "input": "a text"}', False),
        ("m", b'{"model": "m", "input": "data:image/png;base64,AAAA"}', False),
        ("m", b'{"model": "m", "input": "HTTPS://example.com/a.png"}', False),
        ("", b'{"inputs": "a longer text than that"}', True),
        ("", b'{"model": "m", "inputs": "a longer text"}', False),
    ],
)
async def test_requests_for_less_or_for_something_else_are_left_to_the_application(
    refusals: RecentRefusals, model: str, body: bytes, holds: bool
) -> None:
    refuse(refusals, model)
    recent = refusals.find("1.2.3.4", URL, HEADERS)
    assert isinstance(recent, RecentRefusal)
    assert recent.holds_for(body) is holds


async def test_after_a_while_a_few_are_let_through_to_see_and_then_more(refusals: RecentRefusals) -> None:
    refuse(refusals)
    await asyncio.sleep(HOLD_S * 1.1)
    passed = [sum(not find(refusals) for _ in range(100))]
    await asyncio.sleep(HOLD_S / 4)
    passed.append(sum(not find(refusals) for _ in range(100)))
    assert passed == [1, 2]
    refuse(refusals)
    assert find(refusals)


async def test_a_refusal_of_long_ago_means_nothing(refusals: RecentRefusals) -> None:
    refuse(refusals)
    await asyncio.sleep(HOLD_S * 2.2)
    assert not any(find(refusals) for _ in range(100))


async def test_clients_who_are_remembered_are_bounded(refusals: RecentRefusals) -> None:
    for number in range(MAX_CLIENTS + 2):
        refuse(refusals, address=str(number))
    assert len(refusals._refusals) <= MAX_CLIENTS


async def test_a_flood_gets_the_answers_of_the_application_and_spares_other_clients(start_victim: StartVictim) -> None:
    victim = start_victim(
        FAKE_ENGINE_DELAY_S="0.05",
        GATEWAY_MAX_TEXT_TOKENS_IN_FLIGHT="10",
        GATEWAY_MICROBATCH_ITEMS="1",
        GATEWAY_MAX_QUEUE_S="0.5",
    )
    text = "a text of the flood"
    request = {"model": TEXT_MODEL.public_id, "input": text}
    expected = fake_vector(TextItem(text), "passage", TEXT_MODEL.dimensions).tolist()
    answers: list[httpx.Response] = []

    async def flood(client: httpx.AsyncClient) -> None:
        for _ in range(20):
            answers.append(await client.post("/v1/embeddings", json=request, headers={"x-request-id": "mine"}))
            await asyncio.sleep(0.02)

    limits, local = httpx.Limits(max_connections=200), httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with (
        httpx.AsyncClient(base_url=victim.url, timeout=60, limits=limits) as many,
        httpx.AsyncClient(base_url=victim.url, timeout=60, transport=local) as other,
    ):
        flooding = asyncio.gather(*(flood(many) for _ in range(40)))
        while not flooding.done():
            assert (await other.post("/v1/embeddings", json=request)).status_code == 200
        await flooding
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert victim.metric('tessera_refused_connections_total{reason="overload"}') > statuses[503] / 2
        for answer in answers:
            assert answer.headers["x-request-id"] == "mine"
            if answer.status_code == 200:
                assert answer.json()["data"][0]["embedding"] == pytest.approx(expected, abs=1e-6)
            else:
                assert answer.json()["type"] == "overloaded_error"
                assert int(answer.headers["retry-after"]) >= 1
        counted = victim.metric(
            'tessera_requests_total{dialect="openai_nim",model="",route="/v1/embeddings",status="503"}'
        )
        assert counted == statuses[503]
        await asyncio.sleep(1)
        assert (await many.post("/v1/embeddings", json=request)).status_code == 200
