"""Images that cost much to decode, beside small ones and texts of other clients."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.end_to_end.samples import IMAGE_URL, TINY
from tests.preprocess.image_files import encode, repeat_last_scan
from tests.service import Service

pytestmark = [pytest.mark.triton, pytest.mark.slow]

LARGEST_WEBP = encode(Image.new("RGB", (16383, 8192), "red"), "WEBP", lossless=True, quality=0, method=0)
"""40 bytes whose decoding takes 6 to 9 s."""

PROGRESSIVE = encode(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)

ATTACK_S = 6
CANARY_LIMIT_S = 5.0
"""Of what takes 0.1 s on two idle cores, and beside these attacks took two minutes before decoders were shared."""
CANARIES = {"text": "a canary", "image": IMAGE_URL}


def data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


ATTACKS = {
    "webp bombs in one request": [[data_url(LARGEST_WEBP, "webp")] * 24],
    "webp bombs in many requests": [[data_url(LARGEST_WEBP, "webp")]] * 6,
    "thousands of scans": [[data_url(repeat_last_scan(PROGRESSIVE, 2000), "jpeg")] * 8],
    "as many scans as allowed": [[data_url(repeat_last_scan(PROGRESSIVE, 90), "jpeg")] * 8] * 4,
}


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.http_url, timeout=150) as client:
        yield client


async def embed(http: httpx.AsyncClient, inputs: Sequence[str]) -> httpx.Response:
    return await http.post("/v1/embeddings", json={"model": TINY, "input": list(inputs)})


def read_vector(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return np.array(response.json()["data"][0]["embedding"])


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_other_clients_are_served_beside_an_attack(http: httpx.AsyncClient, attack: list[list[str]]) -> None:
    expected = {kind: read_vector(await embed(http, [item])) for kind, item in CANARIES.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in CANARIES}

    async def attack_again(inputs: list[str]) -> None:
        while True:
            response = await embed(http, inputs)
            assert response.status_code in (200, 400, 413, 503) and len(response.content) < 2048 * len(inputs)

    async def send_canary(kind: str) -> None:
        started_s = time.perf_counter()
        vector = read_vector(await embed(http, [CANARIES[kind]]))
        seconds[kind].append(time.perf_counter() - started_s)
        np.testing.assert_allclose(vector, expected[kind], atol=1e-5)

    attackers = [asyncio.ensure_future(attack_again(inputs)) for inputs in attack]
    canaries = []
    for _ in range(10 * ATTACK_S):
        canaries += [asyncio.ensure_future(send_canary(kind)) for kind in CANARIES]
        await asyncio.sleep(0.1)
    await asyncio.gather(*canaries)
    for attacker in attackers:
        assert not attacker.done() or attacker.exception() is None
        attacker.cancel()
    assert {kind: max(each) < CANARY_LIMIT_S for kind, each in seconds.items()} == {"text": True, "image": True}


def test_the_image_step_stops_when_the_time_of_a_request_is_over(triton: InferenceServerClient) -> None:
    images = np.array([[LARGEST_WEBP] * 50], dtype=np.object_)
    tensor = InferInput("image", images.shape, "BYTES")
    tensor.set_data_from_numpy(images)
    started_s = time.monotonic()
    with pytest.raises(InferenceServerException, match="request timeout expired"):
        triton.infer("tiny_checkpoint_image", [tensor], timeout=500_000)
    assert time.monotonic() - started_s < 30  # all of them take minutes
