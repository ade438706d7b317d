"""Metrics, their labels, and the access log."""

import asyncio
import json
import logging

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.fake_engine import IMAGE_MODEL, FakeEngine
from tests.gateway.requests import DATA_URL, post


async def read_metrics(client: httpx.AsyncClient) -> dict[str, float]:
    response = await client.get("/v1/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_a_successful_request_is_counted(client: httpx.AsyncClient) -> None:
    usage = (await post(client, input=["a b", DATA_URL])).json()["usage"]["prompt_tokens_details"]
    metrics = await read_metrics(client)
    model = f'model="{IMAGE_MODEL.public_id}"'
    request = f'{{dialect="openai_nim",{model},route="/v1/embeddings",status="200"}}'
    assert metrics[f"tessera_requests_total{request}"] == 1
    assert metrics[f"tessera_items_total{{{model}}}"] == 2
    assert metrics[f'tessera_tokens_total{{modality="text",{model}}}'] == usage["text_tokens"]
    assert metrics[f'tessera_tokens_total{{modality="image",{model}}}'] == 256
    assert metrics[f"tessera_tiles_total{{{model}}}"] == 1
    assert metrics[f"tessera_image_bytes_total{{{model}}}"] > 0
    for stage in ("read", "fetch", "inference", "postprocess"):
        assert metrics[f'tessera_stage_seconds_count{{stage="{stage}"}}'] == 1
    assert metrics["tessera_requests_in_flight"] == 1  # this very request


async def test_labels_never_come_from_the_client(client: httpx.AsyncClient) -> None:
    await client.get("/invented/path")
    await post(client, model="invented-model", input="a")
    text = (await client.get("/v1/metrics")).text
    assert "invented" not in text
    assert 'route="unmatched",status="404"' in text


async def test_each_request_makes_one_line_without_its_content(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway.access")
    await post(client, input="my own words", user="alice@example.com")
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "gateway.access"]
    assert (line["status"], line["items"], line["route"]) == (200, 1, "/v1/embeddings")
    assert len(line["user_hash"]) == 16
    assert "alice" not in caplog.text
    assert "my own words" not in caplog.text


async def serve_page(answer: bytes) -> asyncio.Server:
    """A server that answers every connection with the same bytes."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(respond, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnv_up 1\n\n", 200),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 503),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"#" * 9000000, 503),
        (b"no HTTP at all\r\n\r\n", 503),
    ],
)
async def test_triton_metrics_are_proxied_whole_or_not_at_all(answer: bytes, status: int) -> None:
    page = await serve_page(answer)
    url = f"http://127.0.0.1:{page.sockets[0].getsockname()[1]}/metrics"
    app = create_app(Settings(triton_metrics_url=url), FakeEngine())
    async with page, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        shown = await client.get("/v1/metrics/triton")
    assert shown.status_code == status
    if status == 200:
        assert (shown.text, shown.headers["content-type"][:10]) == ("nv_up 1\n\n", "text/plain")


async def test_metrics_of_an_unreachable_triton_are_unavailable() -> None:
    app = create_app(Settings(triton_metrics_url="http://127.0.0.1:9/metrics"), FakeEngine())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        shown = await client.get("/v1/metrics/triton")
    assert (shown.status_code, shown.headers["retry-after"] != "") == (503, True)
