"""Routes with a parameter in their path: they come through FastAPI's router, and behave like every other route."""

import json
from collections.abc import Mapping

import httpx
import pytest

from gateway.app import create_app
from gateway.engine import ServedModel
from gateway.settings import Settings
from tests.gateway.fake_engine import IMAGE_MODEL, FakeEngine

MODEL = IMAGE_MODEL.public_id
SECRET = "do-not-repeat-me"


class BrokenEngine(FakeEngine):
    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", f"/api/v1/models/{MODEL}/endpoints"])
async def test_unexpected_exception_returns_our_500_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, path: str
) -> None:
    transport = httpx.ASGITransport(create_app(Settings(image_urls="off"), BrokenEngine()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.get(path)
    assert (response.status_code, response.json()["message"]) == (500, "the server failed")
    assert response.headers["x-request-id"]
    assert SECRET not in response.text
    (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert logged.exc_info and logged.exc_info[0] is RuntimeError


async def test_request_context_is_kept(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="gateway.access")
    engine.available = False
    for path, dialect, status in [("/v1/models/a/b", "openai_nim", 503), ("/api/v1/models/a/b", "openrouter", 529)]:
        caplog.clear()
        response = await client.get(path, headers={"x-request-id": "r-18"})
        assert (response.status_code, response.headers["x-request-id"]) == (status, "r-18")
        assert int(response.headers["retry-after"]) >= 1
        (line,) = [json.loads(record.message) for record in caplog.records if record.name == "gateway.access"]
        assert (line["dialect"], line["status"], line["request_id"]) == (dialect, status, "r-18")
        assert line["route"] == path.removesuffix("a/b") + "{model}"
    wrong_method = await client.delete("/v1/models/a/b")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/v1/health/live", "/v1/health/ready", "/health"])
async def test_health_checks_are_logged_only_if_they_fail(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level("INFO", logger="gateway.access")
    assert (await client.get(path)).status_code == 200
    assert not [record for record in caplog.records if record.name == "gateway.access"]
    engine.available = False
    failed = (await client.get(path)).status_code != 200
    assert bool([record for record in caplog.records if record.name == "gateway.access"]) is failed
