"""Keys, rates and quotas over HTTP."""

import hashlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.access import AccessSettingsError, build_access
from gateway.app import create_app
from gateway.engine import ItemFailure
from gateway.errors import EngineFaultError, EngineUnavailableError, GatewayError, OverloadedError
from gateway.settings import Settings
from tests.gateway.fake_engine import TEXT_MODEL, FakeEngine

KEY = "tessera-key-of-alice"
ALICE_SHA256 = hashlib.sha256(KEY.encode()).hexdigest()
BOB_SHA256 = hashlib.sha256(b"key-of-bob").hexdigest()


def alice(**limits: int) -> dict[str, Any]:
    return {"alice": {"sha256": ALICE_SHA256, **limits}}


def alice_and_bob(**limits: int) -> dict[str, Any]:
    return alice(**limits) | {"bob": {"sha256": BOB_SHA256, **limits}}


OPEN_ROUTES = {"/health", "/metrics", "/v1/health/live", "/v1/health/ready", "/v1/metrics", "/v1/metrics/triton"}


@asynccontextmanager
async def serving(
    api_keys: dict[str, Any], engine: FakeEngine | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(api_keys=json.dumps(api_keys), image_urls="off", **settings), engine or FakeEngine())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def ask(client: httpx.AsyncClient, key: str | None = KEY, text: str = "one two three") -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return await client.post("/v1/embeddings", json={"model": TEXT_MODEL.public_id, "input": text}, headers=headers)


async def test_without_keys_every_request_is_admitted() -> None:
    async with serving({}) as client:
        assert (await ask(client, None)).status_code == 200
        assert (await ask(client, "whatever")).status_code == 200


async def test_valid_key_is_admitted() -> None:
    async with serving(alice_and_bob()) as client:
        assert (await ask(client)).status_code == 200
        assert (await ask(client, "key-of-bob")).status_code == 200
        lower = await client.get("/v1/models", headers={"authorization": f"bearer  {KEY}"})
        assert lower.status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer \xff"]
)
async def test_without_a_valid_key_the_response_is_401_in_the_usual_shape(header: str | None) -> None:
    engine = FakeEngine()
    async with serving(alice(), engine) as client:
        headers = {} if header is None else {b"authorization": header.encode("latin-1")}
        response = await client.post("/v1/embeddings", content=b"not even JSON", headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    body = response.json()
    assert body["object"] == "error"
    assert body["error"] == {
        "message": body["message"],
        "type": "authentication_error",
        "param": None,
        "code": 401,
    }
    assert not engine.batches


async def test_every_route_but_the_probes_needs_a_key() -> None:
    app = create_app(Settings(api_keys=json.dumps(alice()), image_urls="off"), FakeEngine())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        open_routes = set()
        for route in app.routes:
            if isinstance(route, APIRoute):
                assert route.methods
                for method in route.methods:
                    if (await client.request(method, route.path)).status_code != 401:
                        open_routes.add(route.path)
    assert open_routes == OPEN_ROUTES


@pytest.mark.parametrize(
    ("protect_metrics", "closed"),
    [
        ("none", set()),
        ("triton", {"/v1/metrics/triton"}),
        ("all", {"/v1/metrics/triton", "/v1/metrics", "/metrics"}),
    ],
)
async def test_metrics_may_need_a_key(protect_metrics: str, closed: set[str]) -> None:
    async with serving(alice(), protect_metrics=protect_metrics, triton_metrics_url="http://127.0.0.1:9") as client:
        for path in OPEN_ROUTES:
            assert ((await client.get(path)).status_code == 401) == (path in closed)
        assert (await client.get("/metrics", headers={"authorization": f"Bearer {KEY}"})).status_code == 200


async def test_requests_above_the_rate_get_429_with_retry_after() -> None:
    async with serving(alice_and_bob(requests_per_minute=2)) as client:
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 200]
        response = await ask(client)
        assert (response.status_code, response.json()["type"]) == (429, "rate_limit_error")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await ask(client, "key-of-bob")).status_code == 200


async def test_rate_recovers_when_the_minute_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(alice(requests_per_minute=1, tokens_per_minute=1)) as client:
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 429]
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s + 61)
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("age_s", [0, 1, 30, 59])
async def test_retry_after_is_never_beyond_the_end_of_the_window(monkeypatch: pytest.MonkeyPatch, age_s: int) -> None:
    """And never before it: a client that waits that long is served."""
    async with serving(alice(requests_per_minute=1)) as client:
        began_s = time.time()
        monkeypatch.setattr(time, "time", lambda: began_s)
        await ask(client)
        monkeypatch.setattr(time, "time", lambda: began_s + age_s)
        for _ in range(5):
            assert int((await ask(client)).headers["retry-after"]) in (60 - age_s, 61 - age_s)  # limits rounds up


async def test_failed_requests_count_as_requests() -> None:
    async with serving(alice(requests_per_minute=2)) as client:
        headers = {"authorization": f"Bearer {KEY}"}
        broken = await client.post("/v1/embeddings", content=b"{", headers=headers)
        assert (broken.status_code, (await ask(client, text=" ")).status_code) == (415, 400)
        assert (await ask(client)).status_code == 429


async def test_request_that_fails_in_the_engine_costs_its_tokens() -> None:
    engine = FakeEngine(fail_item=lambda item: ItemFailure("text_too_long", "is too long"))
    async with serving(alice(tokens_per_minute=50), engine) as client:
        statuses = [(await ask(client, text="word " * 200)).status_code for _ in range(2)]
        assert statuses == [400, 429]


async def test_request_that_takes_too_long_costs_its_tokens() -> None:
    engine = FakeEngine(delay_s=30)
    async with serving(alice(tokens_per_minute=50), engine, request_timeout_s=0.2) as client:
        statuses = [(await ask(client, text="word " * 200)).status_code for _ in range(2)]
        assert statuses == [504, 429]


@pytest.mark.parametrize(
    "fault", [EngineUnavailableError(), EngineFaultError("wrong shape"), OverloadedError("queue full")]
)
async def test_faults_of_the_engine_cost_no_tokens(fault: GatewayError) -> None:
    engine = FakeEngine(error=fault)
    async with serving(alice(token_quota=1), engine) as client:
        assert [(await ask(client)).status_code for _ in range(2)] in ([503, 503], [500, 500])


async def test_wrong_keys_are_throttled_by_address_and_valid_ones_are_not() -> None:
    async with serving(alice(), wrong_keys_per_minute=3) as client:
        statuses = [(await ask(client, f"guess-{number}")).status_code for number in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        throttled = await ask(client, "guess")
        assert throttled.json()["message"] == "at most 3 wrong API keys per minute are answered"
        assert 1 <= int(throttled.headers["retry-after"]) <= 60
        assert (await ask(client)).status_code == 200
        assert (await ask(client, None)).status_code == 401


async def guess_from(client: httpx.AsyncClient, *addresses: str) -> list[int]:
    headers = {"authorization": "Bearer guess"}
    return [
        (await client.get("/v1/models", headers=headers | {"x-forwarded-for": address})).status_code
        for address in addresses
    ]


async def test_address_behind_a_trusted_proxy_is_the_clients() -> None:
    async with serving(alice(), wrong_keys_per_minute=1, trusted_proxies="127.0.0.1, ::1") as client:
        assert await guess_from(client, "8.8.8.8", "9.9.9.9", "8.8.8.8") == [401, 401, 429]
        assert await guess_from(client, "1.1.1.1, 8.8.8.8") == [429]
        assert await guess_from(client, "2600::1", "2600::2", "2600:0:0:1::1") == [401, 429, 401]


async def test_without_trusted_proxies_the_forwarded_address_is_not_believed() -> None:
    async with serving(alice(), wrong_keys_per_minute=1) as client:
        assert await guess_from(client, "8.8.8.8", "9.9.9.9") == [401, 429]


async def test_tokens_above_the_rate_get_429() -> None:
    async with serving(alice(tokens_per_minute=5)) as client:
        used = [(await ask(client)).json()["usage"]["total_tokens"] for _ in range(2)]
        assert used[0] < 5 <= sum(used)
        response = await ask(client)
        assert response.status_code == 429
        assert response.json()["message"] == "this API key may use 5 tokens per minute"
        assert int(response.headers["retry-after"]) >= 1


async def test_spent_quota_gets_402() -> None:
    async with serving(alice(token_quota=5) | {"bob": {"sha256": BOB_SHA256}}) as client:
        assert [(await ask(client)).status_code for _ in range(3)] == [200, 200, 402]
        response = await ask(client)
        assert response.json()["type"] == "insufficient_quota"
        assert "retry-after" not in response.headers
        assert (await ask(client, "key-of-bob")).status_code == 200


async def test_refused_requests_cost_no_tokens() -> None:
    async with serving(alice(token_quota=5)) as client:
        for _ in range(5):
            assert (await ask(client, text=" ")).status_code == 400
        assert (await ask(client)).status_code == 200


async def test_unreachable_store_admits_valid_keys_only(caplog: pytest.LogCaptureFixture) -> None:
    keys = alice(requests_per_minute=1, token_quota=1)
    async with serving(keys, rate_store="redis://127.0.0.1:9/0") as client:
        assert [(await ask(client)).status_code for _ in range(3)] == [200, 200, 200]
        assert (await ask(client, "wrong")).status_code == 401
    assert "the rate store fails" in caplog.text


@pytest.mark.parametrize("url", ["mongodb://127.0.0.1", "redis", ""])
def test_unknown_store_is_refused_at_start(url: str) -> None:
    with pytest.raises(AccessSettingsError, match="rate_store"):
        build_access(Settings(api_keys=json.dumps(alice()), rate_store=url))


def test_redis_without_its_client_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(AccessSettingsError, match=r"tessera\[redis\]"):
        build_access(Settings(api_keys=json.dumps(alice()), rate_store="redis://127.0.0.1:9/0"))


async def test_logs_name_the_caller_and_never_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(alice()) as client:
        await ask(client)
        await ask(client, KEY + "-mistyped")
    assert '"caller":"alice"' in caplog.text
    assert KEY not in caplog.text
    assert ALICE_SHA256 not in caplog.text
