"""Bad input of every kind, from the table in `bad_input.json`, and what holds for all of it.

A line of the table is a request and its response: `path`, `method` (POST), `headers`, and a body, which is `json`, or
`text` in latin-1 that may be `repeat`ed between `before` and `after`. `<SECRET>` stands for something that no response
may contain, `<MODEL>` and `<TEXT_MODEL>` for served models, `<file>` for base64 of a file below.
"""

import asyncio
import base64
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from gateway.api.error_responses import ErrorBody, ErrorDetails
from gateway.app import create_app
from gateway.engine import ItemFailure
from gateway.settings import Settings
from gateway.types import ImageItem, Item, TextImageItem, TextItem
from preprocess.decode import decode_image
from preprocess.items import ImageError
from preprocess.pdf import render_page
from preprocess.settings import ImageLimits
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.pdf_files import fill, make_pdf
from tests.preprocess.image_files import COLOUR, PNG_SIGNATURE, draw_scene, encode, encode_chunk, encode_png

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("bad_input.json").read_text())

SECRET = "Geheime Sache 4711"
MAX_RESPONSE_BYTES = 2048
MAX_MESSAGE_CHARS = 200

PNG = encode(draw_scene(40, 30), "PNG")
JPEG = encode(draw_scene(40, 30), "JPEG")
FILES = {
    "png": PNG,
    "pdf": make_pdf([fill(1, 0, 0)]),
    "png-without-end": PNG[:-12],
    "png-with-wrong-checksum": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "png-of-no-size": encode_png((0, 0), 8, COLOUR, []),
    "png-of-many-pixels": encode_png((60_000, 60_000), 8, COLOUR, [b"\x00" * 3]),
    "png-text-bomb": encode_png(
        (1, 1), 8, COLOUR, [bytes(3)], before=[(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(5_000_000)))]
    ),
    "png-header-only": PNG_SIGNATURE + encode_chunk(b"IHDR", bytes(13)),
    "jpeg-truncated": JPEG[: len(JPEG) // 2],
    "jpeg-start": b"\xff\xd8\xff",
    "webp-start": b"RIFF\x00\x00\x00\x00WEBP",
    "webp-of-many-pixels": b"RIFF\x1a\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff",
    "gif-start": b"GIF89a",
    "tiff": encode(Image.new("RGB", (4, 4)), "TIFF"),
    "bmp": encode(Image.new("RGB", (4, 4)), "BMP"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "html": b"<!doctype html><p>Geheime Sache 4711",
    "zeros": bytes(100),
    "one-byte": b"\x89",
    "pdf-truncated": make_pdf([fill(1, 0, 0)])[:60],
    "large": bytes(200_001),
}


def fail_undecodable(item: Item) -> ItemFailure | None:
    """Return what the preprocessing backend says of a file, and of texts with a mark."""
    try:
        match item:
            case ImageItem(bytes(file), page) if page:
                render_page(file, page)
            case ImageItem(bytes(file)) | TextImageItem(_, bytes(file)):
                decode_image(file, ImageLimits())
            case TextItem(text) if text.startswith("too long"):
                return ItemFailure("text_too_long", "the text has 300 tokens, and the limit is 256")
    except ImageError as error:
        return ItemFailure(error.code, error.message)
    return None


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        image_url_connect_timeout_s=0.05, max_image_bytes=200_000, max_body_bytes=1_000_000, max_images=8
    )
    app = create_app(settings, FakeEngine(fail_item=fail_undecodable))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


def fill_in(text: str) -> str:
    values = {"SECRET": SECRET, "MODEL": IMAGE_MODEL.public_id, "TEXT_MODEL": TEXT_MODEL.public_id}
    values |= {name: base64.b64encode(file).decode() for name, file in FILES.items()}
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return text


def read_content(case: dict[str, Any]) -> bytes:
    if "json" in case:
        return fill_in(json.dumps(case["json"], ensure_ascii=False)).encode()
    repeated = case.get("text", "") * case.get("repeat", 1)
    return fill_in(case.get("before", "") + repeated + case.get("after", "")).encode("latin-1")


async def send(client: httpx.AsyncClient, case: dict[str, Any]) -> httpx.Response:
    headers = {"content-type": "application/json"} | case.get("headers", {})
    encoded = [(name, fill_in(value).encode("latin-1")) for name, value in headers.items() if value is not None]
    return await client.request(
        case.get("method", "POST"), fill_in(case["path"]), content=read_content(case), headers=encoded
    )


async def embed_beside(client: httpx.AsyncClient) -> None:
    """Check that a healthy request is served with the right numbers."""
    body = {"model": TEXT_MODEL.public_id, "input": ["healthy", "neighbour"]}
    response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == 200
    for text, entry in zip(body["input"], response.json()["data"], strict=True):
        expected = fake_vector(TextItem(text), "passage", TEXT_MODEL.dimensions)
        np.testing.assert_allclose(entry["embedding"], expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_bad_input_gets_its_documented_error_and_harms_no_neighbour(
    client: httpx.AsyncClient, case: dict[str, Any]
) -> None:
    response, _ = await asyncio.gather(send(client, case), embed_beside(client))
    assert (response.status_code, response.json()["message"]) == (case["status"], fill_in(case["message"]))
    check_error(response)
    assert SECRET not in response.text
    assert not [word for word in ("Traceback", "Error(", "/work", "site-packages", ".py") if word in response.text]
    await embed_beside(client)


def check_error(response: httpx.Response) -> None:
    """Check that a response is the documented error."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert set(body) == {field.name for field in fields(ErrorBody)}
    assert set(body["error"]) == {field.name for field in fields(ErrorDetails)}
    assert (body["object"], body["error"]["code"]) == ("error", response.status_code)
    assert (body["message"], body["type"]) == (body["error"]["message"], body["error"]["type"])
    assert 400 <= response.status_code < 500
    assert len(response.content) < MAX_RESPONSE_BYTES
    assert 0 < len(body["message"]) < MAX_MESSAGE_CHARS
    assert response.headers["x-request-id"]


def test_table_is_long_and_names_each_case_once() -> None:
    names = [case["name"] for case in CASES]
    assert len(set(names)) == len(names) >= 120
