"""The OpenAI and NIM dialect over HTTP."""

import base64

import httpx
import numpy as np
import pytest

from gateway.app import create_app
from gateway.engine import ServedModel
from gateway.settings import Settings
from gateway.types import ImageItem, TextImageItem, TextItem, TokensItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector

IMAGE = b"\x89PNG image"
DATA_URL = "data:image/png;base64," + base64.b64encode(IMAGE).decode()


async def post(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": IMAGE_MODEL.public_id, **body})


async def test_response_has_the_published_shape(client: httpx.AsyncClient) -> None:
    answer = (await post(client, input=["What is NVIDIA?"], input_type="query", modality="text")).json()
    vector = fake_vector(TextItem("What is NVIDIA?"), "query", 2048)
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": pytest.approx(vector.tolist(), abs=1e-8)}],
        "model": IMAGE_MODEL.public_id,
        "usage": {
            "prompt_tokens": 4,
            "total_tokens": 4,
            "prompt_tokens_details": {"text_tokens": 4, "image_tokens": 0},
        },
    }


async def test_floats_in_json_are_the_engines_own(client: httpx.AsyncClient) -> None:
    answer = (await post(client, input="a")).json()
    received = np.array(answer["data"][0]["embedding"], np.float32)
    np.testing.assert_array_equal(received, fake_vector(TextItem("a"), "passage", 2048))


async def test_order_follows_the_input(client: httpx.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(50)]
    answer = (await post(client, input=texts, encoding_format="base64", dimensions=2048)).json()
    assert [entry["index"] for entry in answer["data"]] == list(range(50))
    for text, entry in zip(texts, answer["data"], strict=True):
        received = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
        np.testing.assert_array_equal(received, fake_vector(TextItem(text), "passage", 2048))


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a", [TextItem("a")]),
        (["a", "b"], [TextItem("a"), TextItem("b")]),
        ([1, 2, 3], [TokensItem([1, 2, 3])]),
        ([[1, 2], [3]], [TokensItem([1, 2]), TokensItem([3])]),
        ([101.0, 7592.0, 102], [TokensItem([101, 7592, 102])]),
        (
            [[1, 2], [3.0, 2147483647.0], [-0.0, 1e2]],
            [TokensItem([1, 2]), TokensItem([3, 2**31 - 1]), TokensItem([0, 100])],
        ),
        (DATA_URL, [ImageItem(IMAGE)]),
        ([f"see {DATA_URL}", "b"], [TextImageItem("see", IMAGE), TextItem("b")]),
        ([f'<img src="{DATA_URL}"/>'], [ImageItem(IMAGE)]),
        ([{"content": [{"type": "text", "text": "a"}]}, "b"], [TextItem("a"), TextItem("b")]),
        ([{"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}], [ImageItem(IMAGE)]),
        (
            [
                {
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
                        {"type": "text", "text": "b"},
                    ]
                }
            ],
            [TextImageItem("a\nb", IMAGE)],
        ),
    ],
)
async def test_every_form_of_input_is_understood(
    client: httpx.AsyncClient, engine: FakeEngine, value: object, items: list[object]
) -> None:
    response = await post(client, input=value)
    assert response.status_code == 200, response.text
    assert list(engine.batches[0].items) == items
    token_ids = [token_id for item in engine.batches[0].items for token_id in getattr(item, "token_ids", [])]
    assert all(type(token_id) is int for token_id in token_ids)
    assert [entry["index"] for entry in response.json()["data"]] == list(range(len(items)))


async def test_explicit_text_modality_embeds_a_data_url_as_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await post(client, input=[DATA_URL, DATA_URL], modality=["text", "image"])
    assert list(engine.batches[0].items) == [TextItem(DATA_URL), ImageItem(IMAGE)]


async def test_one_modality_in_a_list_counts_for_all(client: httpx.AsyncClient) -> None:
    assert (await post(client, input=["a", "b", "c"], modality=["text"])).status_code == 200


async def test_image_tokens_are_counted_apart(client: httpx.AsyncClient) -> None:
    usage = (await post(client, input=[DATA_URL, "one two"])).json()["usage"]
    assert usage["prompt_tokens_details"]["image_tokens"] == 256
    assert usage["total_tokens"] == 256 + usage["prompt_tokens_details"]["text_tokens"]


@pytest.mark.parametrize(
    ("suffix", "field", "expected"),
    [
        ("", None, "passage"),
        ("-query", None, "query"),
        ("-passage", None, "passage"),
        (":free", None, "passage"),
        ("-query:free", None, "query"),
        (":free-query", None, "query"),
        ("-query", "query", "query"),
        ("", "search_query", "query"),
        ("", "search_document", "passage"),
        ("", "query", "query"),
    ],
)
async def test_input_type_comes_from_suffix_or_field(
    client: httpx.AsyncClient, engine: FakeEngine, suffix: str, field: str | None, expected: str
) -> None:
    response = await post(client, model=IMAGE_MODEL.public_id + suffix, input="a", input_type=field)
    assert response.json()["model"] == IMAGE_MODEL.public_id
    assert engine.batches[0].input_type == expected


async def test_contradicting_input_types_are_refused(client: httpx.AsyncClient) -> None:
    response = await post(client, model=IMAGE_MODEL.public_id + "-query", input="a", input_type="passage")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input_type")


@pytest.mark.parametrize(
    ("model", "dimensions", "status"),
    [
        (IMAGE_MODEL, 128, 200),
        (IMAGE_MODEL, 2048, 200),
        (IMAGE_MODEL, 127, 400),
        (IMAGE_MODEL, 2049, 400),
        (TEXT_MODEL, 32, 200),
        (TEXT_MODEL, 31, 400),
        (TEXT_MODEL, 384, 200),
        (TEXT_MODEL, 385, 400),
    ],
)
async def test_dimensions_are_bounded_by_the_model(
    client: httpx.AsyncClient, model: ServedModel, dimensions: int, status: int
) -> None:
    response = await post(client, model=model.public_id, input="a", dimensions=dimensions)
    assert response.status_code == status
    if status == 200:
        assert len(response.json()["data"][0]["embedding"]) == dimensions
    else:
        smallest = 128 if model is IMAGE_MODEL else 32
        assert response.json()["message"] == f"dimensions must be from {smallest} to {model.dimensions}"


@pytest.mark.parametrize(("kind", "size"), [("int8", 256), ("uint8", 256), ("binary", 32), ("ubinary", 32)])
async def test_types_combine_with_dimensions(client: httpx.AsyncClient, kind: str, size: int) -> None:
    numbers = (await post(client, input="a", embedding_type=kind, dimensions=256)).json()["data"][0]["embedding"]
    text = (await post(client, input="a", embedding_type=kind, dimensions=256, encoding_format="base64")).json()
    dtype = np.int8 if kind in ("int8", "binary") else np.uint8
    assert len(numbers) == size
    assert all(isinstance(number, int) for number in numbers)
    assert np.frombuffer(base64.b64decode(text["data"][0]["embedding"]), dtype).tolist() == numbers


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert {"id": IMAGE_MODEL.public_id, "object": "model", "created": 0, "owned_by": "nvidia"} in answer["data"]


@pytest.mark.parametrize(
    "name",
    [
        IMAGE_MODEL.public_id,
        IMAGE_MODEL.public_id.replace("/", "%2F"),
        IMAGE_MODEL.public_id.replace("/", "%2f") + "-query",
        IMAGE_MODEL.public_id + ":free",
    ],
)
async def test_one_model_is_shown_by_any_of_its_names(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/v1/models/{name}")
    assert (response.status_code, response.json()) == (
        200,
        {"id": IMAGE_MODEL.public_id, "object": "model", "created": 0, "owned_by": "nvidia"},
    )
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models", "/api/v1/model"])
@pytest.mark.parametrize("name", ["no/such", "no%2Fsuch", "", "{model:path}", "a%252Fb", "a/b/c/d"])
async def test_unknown_model_gets_404(client: httpx.AsyncClient, path: str, name: str) -> None:
    response = await client.get(f"{path}/{name}")
    body = response.json()
    assert (response.status_code, body["object"], body["error"]["param"]) == (404, "error", "model")
    assert "not found; available: " in body["message"]


async def test_aliases_embed_with_their_model_and_are_listed(engine: FakeEngine) -> None:
    settings = Settings(model_aliases=f"text-embedding-3-small={TEXT_MODEL.public_id},absent=no/such")
    transport = httpx.ASGITransport(create_app(settings, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for path in ("/v1/embeddings", "/api/v1/embeddings"):
            body = {"model": "text-embedding-3-small-query", "input": "a"}
            response = await client.post(path, json=body)
            assert (response.status_code, response.json()["model"]) == (200, TEXT_MODEL.public_id)
        shown = await client.get("/v1/models/text-embedding-3-small")
        listed = (await client.get("/v1/models")).json()["data"]
        absent = await client.post("/v1/embeddings", json={"model": "absent", "input": "a"})
    assert [batch.input_type for batch in engine.batches] == ["query", "query"]
    assert shown.json()["id"] == TEXT_MODEL.public_id
    assert {entry["id"]: entry.get("root") for entry in listed} == {
        TEXT_MODEL.public_id: None,
        IMAGE_MODEL.public_id: None,
        "text-embedding-3-small": TEXT_MODEL.public_id,
    }
    assert listed[-1]["owned_by"] == "sentence-transformers"
    assert absent.status_code == 404


@pytest.mark.parametrize("ready", [True, False])
async def test_health_and_metrics_are_also_at_the_root(
    client: httpx.AsyncClient, engine: FakeEngine, ready: bool
) -> None:
    engine.available = ready
    short, versioned = await client.get("/health"), await client.get("/v1/health/ready")
    assert (short.status_code, short.json()) == (versioned.status_code, versioned.json())
    assert (short.status_code, short.headers.get("retry-after")) == ((200, None) if ready else (503, "1"))
    metrics = await client.get("/metrics")
    assert metrics.headers["content-type"] == (await client.get("/v1/metrics")).headers["content-type"]
    assert f'route="/health",status="{short.status_code}"' in metrics.text


async def test_health_bodies_are_the_published_ones(client: httpx.AsyncClient) -> None:
    live = await client.get("/v1/health/live")
    assert (live.status_code, live.json()) == (200, {"object": "health.response", "message": "live", "live": True})
    ready = await client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"object": "health.response", "message": "ready", "ready": True})


async def test_headers_have_request_id_and_timings(client: httpx.AsyncClient) -> None:
    body = {"model": TEXT_MODEL.public_id, "input": "one two"}
    response = await client.post("/v1/embeddings", json=body, headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-compute-tokens"] == str(response.json()["usage"]["total_tokens"])
    assert float(response.headers["x-total-time"]) >= float(response.headers["x-inference-time"]) > 0
    forged = await client.get("/v1/models", headers={"x-request-id": "a b"})
    assert len(forged.headers["x-request-id"]) == 32
