"""Very long texts beside a well-behaved client."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from bench.canary import Canary
from tests.end_to_end.samples import MINILM, TINY
from tests.service import Service

pytestmark = [pytest.mark.triton, pytest.mark.slow]

MAX_P99_S = 2.0
"""A busy machine takes half of that; tokenised as a whole, each of these held the canary up for up to 20 s."""

MAX_KEPT_BYTES = 100 * 1024 * 1024
SENTENCE = "The cat sat on a mat. "

ATTACKS: Mapping[str, tuple[dict[str, Any], int]] = {
    "punctuation": ({"model": MINILM, "input": "!" * 4_000_000, "truncate": "END"}, 200),
    "punctuation, refused": ({"model": MINILM, "input": "!" * 4_000_000}, 400),
    "sixty megabytes": ({"model": MINILM, "input": "!" * 60_000_000, "truncate": "START"}, 200),
    "a word": ({"model": MINILM, "input": "a" * 6_000_000, "truncate": "END"}, 400),
    "bytes": ({"model": TINY, "input": "!" * 4_000_000, "truncate": "END"}, 400),
    "ideographs": ({"model": TINY, "input": "人" * 600_000, "truncate": "NONE"}, 400),
    "token ids": ({"model": MINILM, "input": [1012] * 4_000_000, "truncate": "END"}, 400),
    "as many token ids as are read": ({"model": MINILM, "input": [[1012] * 65_536] * 8, "truncate": "END"}, 200),
}


def write(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def embed(service: Service, content: bytes) -> httpx.Response:
    return httpx.post(
        f"{service.http_url}/v1/embeddings", content=content, headers={"content-type": "application/json"}, timeout=60
    )


@pytest.fixture
def canary(service: Service) -> Canary:
    return Canary(service.http_url, {"model": MINILM, "input": "a canary sings"})


@pytest.mark.parametrize("name", ATTACKS)
def test_a_very_long_input_harms_nobody(service: Service, canary: Canary, name: str) -> None:
    body, status = ATTACKS[name]
    content = write(body)
    with canary:
        response = embed(service, content)
    assert response.status_code == status, response.text[:200]
    if status == 400:
        assert len(response.json()["message"]) < 200
    assert not canary.wrong and not canary.faults
    assert canary.p99_s < MAX_P99_S


@pytest.mark.parametrize("truncate", ["END", "START"])
def test_a_very_long_text_has_the_vector_of_a_shorter_one(service: Service, truncate: str) -> None:
    texts = [SENTENCE * 3000, SENTENCE * 100_000]
    vectors = []
    for text in texts:
        response = embed(service, write({"model": MINILM, "input": text, "truncate": truncate}))
        vectors.append(response.json()["data"][0]["embedding"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_memory_returns_after_very_long_texts(service: Service) -> None:
    def count_bytes() -> int:
        return sum(process.memory_info().rss for process in service.processes())

    embed(service, write({"model": MINILM, "input": SENTENCE}))
    before = count_bytes()
    for _ in range(3):
        embed(service, write({"model": MINILM, "input": "!" * 20_000_000, "truncate": "END"}))
    assert count_bytes() - before < MAX_KEPT_BYTES
