"""Every JSON value as input, and every valid one: never a server error, and always as many vectors as items."""

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.fake_engine import IMAGE_MODEL

FUNCTION_FIXTURES = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
images = st.binary(min_size=1, max_size=40).map(lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}")
image_parts = images.map(lambda url: {"type": "image_url", "image_url": {"url": url}})
text_parts = texts.map(lambda text: {"type": "text", "text": text})
blocks = st.one_of(
    st.lists(text_parts, min_size=1, max_size=3),
    st.builds(lambda parts, image: [*parts, image], st.lists(text_parts, max_size=2), image_parts),
).map(lambda parts: {"content": parts})
token_ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8)
tagged = st.builds(lambda text, url: f'{text} <img src="{url}"/>', texts, images)
valid_inputs = st.one_of(
    texts,
    images,
    token_ids,
    st.lists(st.one_of(texts, images, tagged, blocks), min_size=1, max_size=6),
    st.lists(token_ids, min_size=1, max_size=6),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


async def send(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = json.dumps({"model": IMAGE_MODEL.public_id, "dimensions": 128, **fields})
    return await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})


@FUNCTION_FIXTURES
@given(value=valid_inputs)
async def test_valid_input_makes_one_vector_per_item(client: httpx.AsyncClient, value: Any) -> None:
    response = await send(client, input=value)
    assert response.status_code == 200, response.text
    one_item = isinstance(value, str) or isinstance(value[0], int)
    assert len(response.json()["data"]) == (1 if one_item else len(value))


@FUNCTION_FIXTURES
@given(value=json_values)
async def test_any_input_is_answered_or_refused(client: httpx.AsyncClient, value: Any) -> None:
    response = await send(client, input=value)
    assert response.status_code in (200, 400)
    assert response.status_code == 200 or len(response.content) < 2048


@FUNCTION_FIXTURES
@given(fields=st.dictionaries(st.sampled_from(["model", "modality", "dimensions", "truncate", "user"]), json_values))
async def test_any_field_is_answered_or_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    response = await send(client, input="a", **fields)
    assert response.status_code in (200, 400, 404)
    assert response.status_code == 200 or len(response.content) < 2048


FORMS = (
    "input must be a string, an array of strings or content blocks, an array of token ids, or an array of such arrays"
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1.5]", FORMS),
        ("[1, 2.5]", FORMS),
        ("[1e999]", FORMS),
        ('["a", 5.0]', FORMS),
        ("[[1], 2.0]", FORMS),
        ("[-1.0]", "input[0] has a token id outside the vocabulary"),
        ("[1, 2147483648.0]", "input[0] has a token id outside the vocabulary"),
        ("[[1], [1e300]]", "input[1] has a token id outside the vocabulary"),
        ("[[1], [2.0, 2.5]]", "input[1] must hold token ids only, as integers"),
        ("[[1e999]]", "input[0] must hold token ids only, as integers"),
        ("[NaN]", "the request body is not valid JSON"),
        ("[[Infinity]]", "the request body is not valid JSON"),
    ],
)
async def test_floats_that_are_no_token_ids_are_refused(client: httpx.AsyncClient, value: str, message: str) -> None:
    body = f'{{"model": "{IMAGE_MODEL.public_id}", "input": {value}}}'
    response = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["message"]) == (400, message)
