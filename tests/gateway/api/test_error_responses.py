"""The published error table, the statuses of every domain error, and what hostile requests get."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from gateway import errors
from gateway.api.error_responses import STATUS_OF_ERROR, render_error, status_of
from gateway.app import create_app
from gateway.engine import ItemFailure
from gateway.settings import Settings
from gateway.types import TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, FakeEngine
from tests.gateway.requests import DATA_URL, IMAGE, post

SECRET = "do-not-repeat-me"
MODEL = IMAGE_MODEL.public_id


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"input": []}, 400, "input must not be empty"),
        ({"input": [""]}, 400, "input[0] must not be blank or empty"),
        ({"input": ["a", " \n"]}, 400, "input[1] must not be blank or empty"),
        (
            {"input": "a", "model": "wrong-model"},
            404,
            "model 'wrong-model' not found; available: 'nvidia/llama-nemotron-embed-vl-1b-v2'",
        ),
        (
            {"input": "a", "modality": "bogus"},
            400,
            "modality must be one of 'text', 'image', 'text_image'; got 'bogus'",
        ),
        (
            {"input": DATA_URL, "input_type": "query"},
            400,
            'input_type="query" is not supported with images; the VLM model processes images as passages only. '
            'Use input_type="passage" or omit input_type.',
        ),
        ({"input": "a", "encoding_format": "bad"}, 400, "encoding_format must be one of 'float', 'base64'; got 'bad'"),
        (
            {"input": "a", "embedding_type": "bad"},
            400,
            "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'",
        ),
    ],
)
async def test_published_messages_are_reproduced_exactly(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], status: int, message: str
) -> None:
    engine.served = (IMAGE_MODEL,)
    response = await post(client, **fields)
    body = response.json()
    assert (response.status_code, body["message"], body["error"]["message"]) == (status, message, message)
    assert (body["object"], body["error"]["code"]) == ("error", status)
    assert body["type"] == body["error"]["type"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": "a", "model": None}, "model"),
        ({"input": "a", "model": 5}, "model"),
        ({"input": "a", "bogus": 1}, "bogus"),
        ({"input": "a", "dimensions": "128"}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "dimensions": 256.0}, "dimensions"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "dimensions": 10**30}, "dimensions"),
        ({"input": "a", "truncate": "end"}, "truncate"),
        ({"input": "a", "user": 7}, "user"),
        ({"input": "a", "input_type": ["query"]}, "input_type"),
        ({"input": "a", "modality": []}, "modality"),
        ({"input": "a", "modality": ["text", "text"]}, "modality"),
        ({"input": "a", "modality": [["text"]]}, "modality"),
        ({"input": 5}, "input"),
        ({"input": True}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": ["a", [5]]}, "input"),
        ({"input": [1, True]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": [1, -1]}, "input[0]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[1], ["a"]]}, "input[1]"),
        ({"input": [[1], [2**31]]}, "input[1]"),
        ({"input": [[1], [2**63]]}, "input[1]"),
        ({"input": ["a", {}]}, "input[1]"),
        ({"input": [{"content": []}]}, "input[0]"),
        ({"input": [{"content": "a"}]}, "input[0]"),
        ({"input": [{"content": [{"type": "text", "text": " "}]}]}, "input[0]"),
        ({"input": [{"content": [{"type": "text", "text": "a", "more": 1}]}]}, "input[0]"),
        ({"input": [{"content": [{"type": "text", "text": "a"}], "more": 1}]}, "input[0]"),
        ({"input": [{"content": [{"type": "video", "url": "a"}]}]}, "input[0]"),
        ({"input": [{"content": [{"type": "image_url", "image_url": "a"}]}]}, "input[0]"),
        ({"input": [{"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}] * 2}]}, "input[0]"),
        ({"input": [{"content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]}, "input[0]"),
        ({"input": ["a"], "modality": "image"}, "input[0]"),
        ({"input": ["a"], "modality": "text_image"}, "input[0]"),
        ({"input": ["a", f"a {DATA_URL}"], "modality": ["text", "image"]}, "input[1]"),
        ({"input": [[1]], "modality": "image"}, "input[0]"),
        ({"input": ["data:image/png;base64,@@"]}, "input[0]"),
    ],
)
async def test_wrong_fields_get_400_that_names_them(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, object], param: str
) -> None:
    body = json.dumps({"model": MODEL, **fields})
    response = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not engine.batches


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"a"',
        b'{"input": NaN}',
        b'{"dimensions": 1e999}',
        b'{"dimensions": ' + b"5" * 5000 + b"}",
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": "\xff"}',
        '{"input": "a"}'.encode("utf-16"),
        b'{"input": "\\ud800"}',
        b'{"\\udc00": 1}',
        b'\xef\xbb\xbf{"input": "a"}',
        b'{"input": "a",}',
        b'{"model": "a", "input": "b"} x',
    ],
)
async def test_bodies_that_are_not_json_objects_get_400(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["type"] == "invalid_request_error"


async def test_last_value_of_a_duplicate_key_counts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = f'{{"model": "x", "input": "a", "model": "{MODEL}", "input": "b"}}'
    response = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert list(engine.batches[0].items) == [TextItem("b")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
        ({"content-type": 'Application/JSON; Charset="UTF-8"'}, 200),
    ],
)
async def test_only_plain_json_is_taken(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    response = await client.post("/v1/embeddings", content=body, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    "fields",
    [
        {"input": SECRET, "bogus field " + SECRET * 3: 1},
        {"input": SECRET, "modality": f"{SECRET} {SECRET}"},
        {"input": SECRET, "truncate": {SECRET: SECRET}},
        {"input": SECRET, "model": "é" + SECRET},
        {"input": [SECRET, 5]},
        {"input": f"data:image/png;base64,{SECRET}"},
        {"input": SECRET, "encoding_format": SECRET * 1000},
    ],
)
async def test_errors_do_not_echo_the_input(client: httpx.AsyncClient, fields: dict[str, object]) -> None:
    response = await post(client, **fields)
    assert 400 <= response.status_code < 500
    assert SECRET not in response.text
    assert len(response.content) < 2048


async def test_a_large_body_of_empty_arrays_is_refused_unparsed(client: httpx.AsyncClient) -> None:
    body = b'{"input": [' + b"[]," * 2_000_000 + b"[]]}"
    response = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert response.json()["message"] == "the request body has too many values"


async def test_too_many_items_are_refused_at_once(client: httpx.AsyncClient) -> None:
    response = await post(client, input=["a"] * 100_000)
    assert response.status_code == 400
    assert response.json()["message"] == "input must have at most 2048 items; got 100000"


async def test_announced_large_body_is_refused_unread(client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "application/json", "content-length": str(10**9)}
    response = await client.post("/v1/embeddings", content=body(), headers=headers)
    assert response.status_code == 413


async def test_unannounced_large_body_is_refused_midway(client: httpx.AsyncClient, settings: Settings) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10 * settings.max_body_bytes:
            sent += 1 << 20
            yield b" " * (1 << 20)

    response = await client.post("/v1/embeddings", content=body(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert sent <= settings.max_body_bytes + (2 << 20)


@pytest.mark.parametrize("path", ["/v1", "/v1/embeddings/", f"/{SECRET}", "/v1/../etc/passwd"])
async def test_unknown_routes_get_our_404(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["object"]) == (404, "error")
    assert SECRET not in response.text


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/embeddings"), ("GET", "/")])
async def test_wrong_method_gets_our_405(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (405, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("code", "status"),
    [("text_too_long", 400), ("token_id_invalid", 400), ("image_invalid", 400), ("image_too_large", 413), ("", 500)],
)
async def test_failed_item_is_named_by_its_index(
    client: httpx.AsyncClient, engine: FakeEngine, code: str, status: int
) -> None:
    engine.fail_item = lambda item: ItemFailure(code, "is bad") if item == TextItem("bad") else None
    response = await post(client, input=["good", "bad", "good", "bad"])
    assert response.status_code == status
    if code:
        assert response.json()["error"]["param"] == "input[1]"
        assert response.json()["message"] == "input[1]: is bad"


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_invalid_vectors_are_never_sent(client: httpx.AsyncClient, engine: FakeEngine, value: float) -> None:
    engine.make_vector = lambda item, input_type, size: np.full(size, value, np.float32)
    response = await post(client, input="a")
    assert (response.status_code, response.json()["message"]) == (500, "engine returned an invalid vector")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"make_vector": lambda item, input_type, size: np.full(size, np.nan, np.float32)}, "NaN or infinite"),
        ({"fail_item": lambda item: ItemFailure("", "Traceback: no such code")}, "Traceback: no such code"),
        ({"error": errors.EngineFaultError("output embeddings is missing")}, "output embeddings is missing"),
    ],
)
async def test_cause_of_an_engine_fault_is_logged_with_the_request_id_and_never_sent(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture, fault: dict[str, Any], cause: str
) -> None:
    for name, value in fault.items():
        setattr(engine, name, value)
    body = {"model": MODEL, "input": "a"}
    response = await client.post("/v1/embeddings", json=body, headers={"x-request-id": "r-17"})
    assert response.status_code == 500
    assert cause not in response.text
    [record] = [record for record in caplog.records if record.name == "gateway.api.error_responses"]
    assert (record.levelname, "r-17" in record.message, cause in record.message) == ("ERROR", True, True)


async def test_image_above_the_models_own_limit_gets_413_that_names_it(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (replace(IMAGE_MODEL, max_image_bytes=len(IMAGE)),)
    assert (await post(client, input=DATA_URL)).status_code == 200
    engine.served = (replace(IMAGE_MODEL, max_image_bytes=len(IMAGE) - 1),)
    response = await post(client, input=["a", DATA_URL])
    assert (response.status_code, response.json()["error"]["param"]) == (413, "input[1]")
    assert response.json()["message"] == f"input[1]: the image is above the limit of {len(IMAGE) - 1} bytes"


async def test_image_for_a_text_model_is_refused(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (replace(IMAGE_MODEL, takes_images=False),)
    response = await post(client, input=["a", DATA_URL])
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[1]")


async def test_unreachable_engine_returns_503_and_not_ready_until_it_is_back(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.available = False
    response = await post(client, input="a")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    ready = await client.get("/v1/health/ready")
    assert ready.status_code == 503
    assert ready.json() == {"object": "health.response", "message": "not ready", "ready": False}
    assert (await client.get("/v1/health/live")).status_code == 200
    engine.available = True
    assert (await client.get("/v1/health/ready")).status_code == 200
    assert (await post(client, input="a")).status_code == 200


async def test_unexpected_exception_returns_our_500_with_request_id(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    def explode(*arguments: object) -> np.ndarray:
        raise RuntimeError(SECRET)

    engine.make_vector = explode
    response = await post(client, input="a")
    assert (response.status_code, response.json()["message"]) == (500, "the server failed")
    assert response.headers["x-request-id"]
    assert SECRET not in response.text


async def test_disconnect_cancels_the_work(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay_s = 30
    gone = asyncio.Event()
    request = json.dumps({"model": MODEL, "input": "a"}).encode()
    messages = [{"type": "http.request", "body": request, "more_body": False}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        raise AssertionError("answered a client that has gone")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    answering = asyncio.ensure_future(transport.app(scope, receive, send))
    while not engine.batches:
        await asyncio.sleep(0.001)
    gone.set()
    await asyncio.wait_for(answering, 5)
    assert engine.cancelled == 1


@pytest.mark.parametrize("late", ["body", "engine", "queue"])
async def test_a_late_response_is_given_up(engine: FakeEngine, late: str) -> None:
    settings = Settings(request_timeout_s=0.3, max_text_tokens_in_flight=1)
    engine.delay_s = 0 if late == "body" else 30

    async def body() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.sleep(30 if late == "body" else 0)
        yield json.dumps(MODEL).encode() + b', "input": "a"}'

    transport = httpx.ASGITransport(create_app(settings, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        requests = [
            client.post("/v1/embeddings", content=body(), headers={"content-type": "application/json"})
            for _ in range(2 if late == "queue" else 1)
        ]
        answers = await asyncio.gather(*requests)
    for answer in answers:
        assert answer.status_code == (408 if late == "body" else 504)
        assert (answer.json()["type"], answer.headers["x-request-id"] != "") == ("timeout_error", True)
    assert engine.cancelled == len(engine.batches)
    assert bool(engine.batches) == (late != "body")


ALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_domain_error_has_a_status(kind: type[errors.GatewayError]) -> None:
    error = kind.__new__(kind)
    errors.GatewayError.__init__(error, "message")
    status = status_of(error)
    assert 400 <= status.code < 600
    if kind is not errors.GatewayError and not issubclass(kind, errors.EngineFaultError):
        assert status is not STATUS_OF_ERROR[errors.GatewayError]


def test_retry_after_is_spread_above_what_was_asked_for() -> None:
    seen = {render_error(errors.RateLimitedError("slow", retry_after_s=10)).headers["retry-after"] for _ in range(50)}
    assert len(seen) > 1
    assert all(10 <= int(value) <= 20 for value in seen)


def test_retry_after_is_not_spread_beyond_its_bound() -> None:
    error = errors.RateLimitedError("slow", retry_after_s=10, max_retry_after_s=10)
    assert {render_error(error).headers["retry-after"] for _ in range(50)} == {"10"}


def test_missing_key_is_answered_with_the_scheme_to_use() -> None:
    response = render_error(errors.UnauthorizedError("no key"))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
