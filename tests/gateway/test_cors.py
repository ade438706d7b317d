"""Cross-origin requests from browsers: refused by default, allowed by setting."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import TEXT_MODEL, FakeEngine

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}
KEYS = json.dumps({"alice": {"sha256": hashlib.sha256(b"secret").hexdigest()}})
BODY = {"model": TEXT_MODEL.public_id, "input": "a"}


@asynccontextmanager
async def serving(delay_s: float = 0.0, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(image_urls="off", **settings), FakeEngine(delay_s=delay_s))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def test_without_the_setting_no_origin_is_allowed() -> None:
    async with serving() as client:
        preflight = await client.options("/v1/embeddings", headers=PREFLIGHT)
        assert preflight.status_code == 405
        response = await client.post("/v1/embeddings", json=BODY, headers={"origin": ORIGIN})
        assert response.status_code == 200
        assert not [name for name in (*preflight.headers, *response.headers) if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings", "/v1/models/a/b"])
async def test_preflight_needs_no_key(path: str) -> None:
    async with serving(cors_origins=f"https://other.example.com, {ORIGIN}", api_keys=KEYS) as client:
        response = await client.options(path, headers=PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]


@pytest.mark.parametrize("origins", [ORIGIN, "*"])
async def test_vectors_and_their_headers_may_be_read(origins: str) -> None:
    async with serving(cors_origins=origins) as client:
        response = await client.post("/v1/embeddings", json=BODY, headers={"origin": ORIGIN})
    assert (response.status_code, response.headers["x-request-id"] != "") == (200, True)
    assert response.headers["access-control-allow-origin"] == origins
    assert response.headers["access-control-expose-headers"] == "*"


async def test_other_origins_are_not_allowed() -> None:
    async with serving(cors_origins=ORIGIN) as client:
        foreign = {"origin": "https://evil.example.com"}
        assert (await client.options("/v1/embeddings", headers=PREFLIGHT | foreign)).status_code == 400
        response = await client.post("/v1/embeddings", json=BODY, headers=foreign)
    assert "access-control-allow-origin" not in response.headers


async def test_errors_may_be_read_too() -> None:
    async with serving(cors_origins=ORIGIN, api_keys=KEYS) as client:
        without_key = await client.post("/v1/embeddings", json=BODY, headers={"origin": ORIGIN})
        unknown_route = await client.get("/no/such/route", headers={"origin": ORIGIN})
    async with serving(delay_s=30, cors_origins=ORIGIN, request_timeout_s=0.2) as client:
        late = await client.post("/v1/embeddings", json=BODY, headers={"origin": ORIGIN})
    assert [without_key.status_code, unknown_route.status_code, late.status_code] == [401, 404, 504]
    for response in (without_key, unknown_route, late):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.json()["object"] == "error"
