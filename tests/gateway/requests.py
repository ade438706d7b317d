"""What tests of several modules send."""

import base64

import httpx

from tests.gateway.fake_engine import IMAGE_MODEL

IMAGE = b"\x89PNG image"
DATA_URL = "data:image/png;base64," + base64.b64encode(IMAGE).decode()


async def post(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": IMAGE_MODEL.public_id, **body})
