"""Image URLs in requests to the service."""

from typing import Any

import httpx

from gateway.app import create_app
from gateway.fetch.fetcher import NOT_FETCHED
from gateway.settings import Settings
from gateway.types import ImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, FakeEngine
from tests.gateway.fetch.conftest import MakeFetcher
from tests.gateway.fetch.rig import IMAGE, Site, ok
from tests.pdf_files import make_pdf


async def ask(make_fetcher: MakeFetcher, engine: FakeEngine, *urls: str, **settings: Any) -> httpx.Response:
    blocks = [{"content": [{"type": "image_url", "image_url": {"url": url}}]} for url in urls]
    transport = httpx.ASGITransport(create_app(Settings(**settings), engine, make_fetcher()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.post("/v1/embeddings", json={"model": IMAGE_MODEL.public_id, "input": ["a", *blocks]})


async def test_fetched_image_keeps_its_position(make_fetcher: MakeFetcher) -> None:
    engine = FakeEngine()
    response = await ask(make_fetcher, engine, "http://images.example.com/a.png")
    assert response.status_code == 200
    assert list(engine.batches[0].items) == [TextItem("a"), ImageItem(IMAGE)]


async def test_fetched_pdf_has_a_vector_per_page(make_fetcher: MakeFetcher, site: Site) -> None:
    document = make_pdf(["", ""])
    site.pages["/a.pdf"] = ok(document)
    engine = FakeEngine()
    transport = httpx.ASGITransport(create_app(Settings(), engine, make_fetcher()))
    parts = [{"type": "file", "file": {"file_data": "http://images.example.com/a.pdf"}}]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        body = {"model": IMAGE_MODEL.public_id, "input": [{"content": parts}]}
        response = await client.post("/v1/embeddings", json=body)
    assert [entry["page"] for entry in response.json()["data"]] == [1, 2]
    assert list(engine.batches[-1].items) == [ImageItem(document, 1), ImageItem(document, 2)]


async def test_refused_url_gets_400_that_names_the_item_and_repeats_nothing(make_fetcher: MakeFetcher) -> None:
    engine = FakeEngine()
    response = await ask(make_fetcher, engine, "http://images.example.com/a.png", "http://169.254.169.254/secret")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[2]")
    assert response.json()["message"] == f"input[2]: {NOT_FETCHED}"
    assert not engine.batches


async def test_images_above_the_requests_budget_get_413(make_fetcher: MakeFetcher) -> None:
    urls = ["http://images.example.com/a.png"] * 3
    response = await ask(make_fetcher, FakeEngine(), *urls, max_fetched_bytes=2 * len(IMAGE))
    assert response.status_code == 413
