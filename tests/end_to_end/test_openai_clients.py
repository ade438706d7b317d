"""OpenAI's unmodified client for Python: its options, and the exception that it raises for each error."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import openai
import pytest

from tests.end_to_end.samples import MINILM
from tests.service import Service, run_gateway

pytestmark = pytest.mark.triton

KEYS: dict[str, dict[str, int]] = {
    "unlimited": {},
    "rate-limited": {"requests_per_minute": 1},
    "quota-limited": {"token_quota": 1},
}


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def keyed_url(service: Service) -> Iterator[str]:
    """Start a gateway that requires keys."""
    keys = json.dumps({name: {"sha256": hash_key(name), **limits} for name, limits in KEYS.items()})
    with run_gateway(service, GATEWAY_API_KEYS=keys, GATEWAY_MAX_BODY_BYTES="10000") as url:
        yield f"{url}/v1"


def embed(client: openai.OpenAI, **options: Any) -> npt.NDArray[np.float32]:
    response = client.embeddings.create(**({"model": MINILM, "input": "Hello"} | options))
    return np.array([entry.embedding for entry in response.data], np.float32)


@pytest.mark.parametrize("dimensions", [32, 100, 384])
def test_dimensions_cut_the_vector(client: openai.OpenAI, dimensions: int) -> None:
    leading = embed(client)[:, :dimensions]
    np.testing.assert_allclose(embed(client, dimensions=dimensions), leading / np.linalg.norm(leading), atol=1e-6)


def test_token_arrays_equal_their_text(client: openai.OpenAI) -> None:
    np.testing.assert_allclose(embed(client, input=[[101, 7592, 102]]), embed(client), atol=1e-5)
    np.testing.assert_allclose(embed(client, input=[101, 7592, 102]), embed(client), atol=1e-5)


def test_fields_in_extra_body_are_applied(client: openai.OpenAI) -> None:
    numbers = embed(client, encoding_format="float", extra_body={"embedding_type": "int8", "input_type": "query"})
    np.testing.assert_array_equal(numbers, np.trunc(127 * embed(client).astype(float)))


@pytest.mark.parametrize(
    ("options", "kind", "param"),
    [
        ({"model": "wrong-model"}, openai.NotFoundError, "model"),
        ({"input": ""}, openai.BadRequestError, "input[0]"),
        ({"input": []}, openai.BadRequestError, "input"),
        ({"input": ["fine", "long " * 300]}, openai.BadRequestError, "input[1]"),
        ({"input": [[1, -1]]}, openai.BadRequestError, "input[0]"),
        ({"dimensions": 385}, openai.BadRequestError, "dimensions"),
        ({"extra_body": {"bogus": 1}}, openai.BadRequestError, "bogus"),
    ],
)
def test_an_invalid_request_raises(
    client: openai.OpenAI, options: dict[str, object], kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as raised:
        embed(client, **options)
    assert raised.value.param == param
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("key", "options", "calls", "kind", "status"),
    [
        ("unknown", {}, 1, openai.AuthenticationError, 401),
        ("quota-limited", {}, 2, openai.APIStatusError, 402),
        ("unlimited", {"input": "x" * 20_000}, 1, openai.APIStatusError, 413),
        ("rate-limited", {}, 2, openai.RateLimitError, 429),
    ],
)
def test_a_refused_key_raises(
    keyed_url: str, key: str, options: dict[str, object], calls: int, kind: type[openai.APIStatusError], status: int
) -> None:
    with openai.OpenAI(base_url=keyed_url, api_key=key, max_retries=0) as client:
        for _ in range(calls - 1):
            assert embed(client).shape == (1, 384)
        with pytest.raises(kind) as raised:
            embed(client, **options)
    assert raised.value.status_code == status
    if status == 429:
        assert int(raised.value.response.headers["retry-after"]) >= 1
