"""Rankings over HTTP, in every dialect."""

import base64
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.engine import EmbedBatch, ItemFailure
from gateway.types import ImageItem, Item, TextImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_RANK_MODEL, RANK_MODEL, TEXT_MODEL, FakeEngine, fake_score
from tests.gateway.requests import DATA_URL, IMAGE
from tests.pdf_files import make_pdf

QUERY = "Which animal is loyal?"
TEXTS = ["Cats sleep all day", "Dogs are loyal companions", "Fish swim"]
TOKENS = sum(len(text.split()) + 1 + len(QUERY.split()) for text in TEXTS)

Body = dict[str, Any]


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


SCORES = [fake_score(TextItem(text), QUERY) for text in TEXTS]
BEST = sorted(range(len(TEXTS)), key=lambda index: -SCORES[index])


def nim_body(*texts: str, **fields: object) -> Body:
    return {
        "model": RANK_MODEL.public_id,
        "query": {"text": QUERY},
        "passages": [{"text": each} for each in texts],
    } | fields


def cohere_body(*documents: object, **fields: object) -> Body:
    return {"model": RANK_MODEL.public_id, "query": QUERY, "documents": list(documents)} | fields


def tei_body(*texts: str, **fields: object) -> Body:
    return {"query": QUERY, "texts": list(texts)} | fields


BODIES: dict[str, Callable[..., Body]] = {
    "/v1/ranking": nim_body,
    "/v1/rerank": cohere_body,
    "/v2/rerank": cohere_body,
    "/api/v1/rerank": cohere_body,
    "/rerank": tei_body,
}
DOCUMENTS = {
    path: {nim_body: "passages", cohere_body: "documents", tei_body: "texts"}[body] for path, body in BODIES.items()
}
"""What each dialect calls the documents."""


def read_scores(path: str, content: Any) -> list[tuple[int, float]]:
    """The documents' indices and scores in a response, the most relevant first."""
    if path == "/v1/ranking":
        return [(entry["index"], entry["logit"]) for entry in content["rankings"]]
    if path == "/rerank":
        return [(entry["index"], entry["score"]) for entry in content]
    return [(entry["index"], entry["relevance_score"]) for entry in content["results"]]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(served=(TEXT_MODEL, RANK_MODEL))


@pytest.fixture(params=BODIES)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_documents_are_sorted_by_relevance(client: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    response = await client.post(path, json=BODIES[path](*TEXTS))
    assert response.status_code == 200, response.text
    scores = SCORES if path == "/v1/ranking" else [sigmoid(score) for score in SCORES]
    found = read_scores(path, response.json())
    assert [index for index, _ in found] == BEST
    assert [score for _, score in found] == pytest.approx([scores[index] for index in BEST], abs=1e-6)
    [batch] = engine.batches
    assert (batch.query, list(batch.items)) == (QUERY, [TextItem(text) for text in TEXTS])
    assert response.headers["x-compute-tokens"] == str(TOKENS)


async def test_equal_scores_keep_the_order_of_the_request(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.make_score = lambda item, query: 1.0 if item == TextItem("b") else -1.0
    content = (await client.post(path, json=BODIES[path]("a", "b", "c", "d"))).json()
    assert [index for index, _ in read_scores(path, content)] == [1, 0, 2, 3]


@pytest.mark.parametrize("score", [0.0, 88.0, -88.0, 1e4, -1e4])
async def test_every_finite_score_has_a_relevance(client: httpx.AsyncClient, engine: FakeEngine, score: float) -> None:
    engine.make_score = lambda item, query: score
    [(_, relevance)] = read_scores("/v2/rerank", (await client.post("/v2/rerank", json=cohere_body("a"))).json())
    assert relevance == pytest.approx({0.0: 0.5}.get(score, float(score > 0)), abs=1e-30)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
async def test_a_score_that_is_no_number_never_reaches_a_client(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, score: float
) -> None:
    engine.make_score = lambda item, query: score
    response = await client.post(path, json=BODIES[path]("a"))
    assert response.status_code == 500
    assert response.json()["message"] == "engine returned an invalid score"


TOP_N_PATHS = [path for path in BODIES if path != "/v1/ranking"]  # whose API has no such field


@pytest.mark.parametrize("path", TOP_N_PATHS)
@pytest.mark.parametrize(("top", "count"), [(1, 1), (2, 2), (3, 3), (1000, 3)])
async def test_only_the_best_are_returned(client: httpx.AsyncClient, path: str, top: int, count: int) -> None:
    content = (await client.post(path, json=BODIES[path](*TEXTS, top_n=top))).json()
    assert [index for index, _ in read_scores(path, content)] == BEST[:count]


@pytest.mark.parametrize("path", TOP_N_PATHS)
@pytest.mark.parametrize("top", [0, -1, 1.5, "1"])
async def test_a_number_of_results_below_one_is_refused(client: httpx.AsyncClient, path: str, top: object) -> None:
    response = await client.post(path, json=BODIES[path](*TEXTS, top_n=top))
    message = "top_n must be a positive integer"
    assert (response.status_code, response.json()["message"]) == (400, message)
    assert response.json()["error"]["param"] == "top_n"


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "{} must not be empty"),
        (["a", " "], "{}[1] must not be blank or empty"),
        (["a"] * 2049, "{} must have at most 2048 items; got 2049"),
    ],
)
async def test_errors_speak_of_the_documents_in_the_words_of_the_dialect(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, documents: list[str], message: str
) -> None:
    response = await client.post(path, json=BODIES[path](*documents))
    assert (response.status_code, response.json()["message"]) == (400, message.format(DOCUMENTS[path]))
    assert response.json()["error"]["param"] == message.format(DOCUMENTS[path]).split()[0]
    assert not engine.batches


async def test_a_document_that_the_engine_refuses_is_named(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.fail_item = lambda item: ItemFailure("text_too_long", "it is") if item == TextItem("b") else None
    response = await client.post(path, json=BODIES[path]("a", "b"))
    assert (response.status_code, response.json()["message"]) == (400, f"{DOCUMENTS[path]}[1]: it is")


@pytest.mark.parametrize("query", ["", " \n"])
async def test_a_blank_query_is_refused(client: httpx.AsyncClient, path: str, query: str) -> None:
    body = BODIES[path](*TEXTS, query={"text": query} if path == "/v1/ranking" else query)
    response = await client.post(path, json=body)
    assert (response.status_code, response.json()["message"]) == (400, "query must not be blank or empty")


async def test_a_query_is_never_cut(client: httpx.AsyncClient, path: str) -> None:
    query = "a " * 40_000
    body = BODIES[path](*TEXTS, query={"text": query} if path == "/v1/ranking" else query)
    response = await client.post(path, json=body)
    message = "query: 80000 characters exceed the limit of 65536 for 512 tokens"
    assert (response.status_code, response.json()["message"]) == (400, message)


async def test_an_unknown_field_is_named(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json=BODIES[path](*TEXTS, bogus=1))
    assert (response.status_code, response.json()["message"]) == (400, "unknown field 'bogus'")


@pytest.mark.parametrize("field", ["query", "documents"])
async def test_a_missing_field_is_named(client: httpx.AsyncClient, path: str, field: str) -> None:
    name = DOCUMENTS[path] if field == "documents" else field
    body = BODIES[path](*TEXTS)
    del body[name]
    response = await client.post(path, json=body)
    assert (response.status_code, response.json()["message"]) == (400, f"{name} is required")


async def test_a_model_that_embeds_cannot_rank(client: httpx.AsyncClient, path: str) -> None:
    body, query = BODIES[path](*TEXTS, model=TEXT_MODEL.public_id), ""
    if path == "/rerank":
        query = f"?model={body.pop('model')}"
    response = await client.post(path + query, json=body)
    assert response.status_code == 400
    assert response.json()["message"] == (
        f"model '{TEXT_MODEL.public_id}' embeds and cannot rank; models that can: '{RANK_MODEL.public_id}'"
    )
    assert response.json()["error"]["param"] == "model"


async def test_a_model_that_ranks_cannot_embed(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for path in ("/v1/embeddings", "/api/v1/embeddings", "/v1/tokenize"):
        response = await client.post(path, json={"model": RANK_MODEL.public_id, "input": "a"})
        assert response.status_code == 400
        assert response.json()["message"] == (
            f"model '{RANK_MODEL.public_id}' ranks and cannot embed; models that can: '{TEXT_MODEL.public_id}'"
        )
    assert not engine.batches


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_a_request_without_a_model_gets_the_only_one_that_ranks(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    body = BODIES[path](*TEXTS)
    body.pop("model", None)
    assert (await client.post(path, json=body)).status_code == 200
    engine.served = (TEXT_MODEL,)
    response = await client.post(path, json=body)
    assert (response.status_code, response.json()["message"]) == (404, "no model that ranks is served")
    engine.served = (RANK_MODEL, replace(RANK_MODEL, public_id="m/other"))
    response = await client.post(path, json=body)
    assert response.json()["message"] == "several models are served, and the request names none"


@pytest.mark.parametrize(
    ("path", "fields", "truncate"),
    [
        ("/v1/ranking", {}, "NONE"),
        ("/v1/ranking", {"truncate": "END"}, "END"),
        ("/v1/ranking", {"truncate": "START"}, "START"),
        ("/v1/rerank", {}, "END"),
        ("/v2/rerank", {"max_tokens_per_doc": 4096, "priority": 0}, "END"),
        ("/v1/rerank", {"max_chunks_per_doc": 10}, "END"),
        ("/api/v1/rerank", {"session_id": "s", "trace": {"id": 1}, "user": "u"}, "END"),
        ("/rerank", {}, "NONE"),
        ("/rerank", {"truncate": False, "truncation_direction": "Right"}, "NONE"),
        ("/rerank", {"truncate": True}, "END"),
        ("/rerank", {"truncate": True, "truncation_direction": "left"}, "START"),
    ],
)
async def test_long_documents_are_cut_as_each_api_says(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, fields: Body, truncate: str
) -> None:
    assert (await client.post(path, json=BODIES[path]("a", **fields))).status_code == 200
    assert [batch.truncate for batch in engine.batches] == [truncate]


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/v1/ranking", {"query": "a"}, 'query must be an object with "text"'),
        ("/v1/ranking", {"passages": ["a"]}, 'passages must be an array of objects with "text", "image" or both'),
        ("/v1/ranking", {"truncate": "end"}, "truncate must be one of 'NONE', 'START', 'END'; got 'end'"),
        ("/v1/ranking", {"model": ""}, "model is required"),
        (
            "/v1/rerank",
            {"documents": "a"},
            "documents must be an array of strings, and of objects whose values are strings",
        ),
        ("/v1/rerank", {"documents": [{"title": "a"}]}, "documents[0] must not be blank or empty"),
        (
            "/v1/rerank",
            {"documents": [{"text": 1}]},
            "documents must be an array of strings, and of objects whose values are strings",
        ),
        ("/v1/rerank", {"rank_fields": []}, "rank_fields must be an array of strings that is not empty"),
        ("/v1/rerank", {"return_documents": "yes"}, "return_documents must be a boolean"),
        (
            "/v2/rerank",
            {"max_tokens_per_doc": 100},
            "max_tokens_per_doc must be at least 512, the model's limit: lower limits are not supported",
        ),
        ("/v2/rerank", {"priority": 1}, "priority must be 0"),
        (
            "/api/v1/rerank",
            {"documents": [{"title": "a"}]},
            'documents must be an array of strings and objects with "text", "image" or both',
        ),
        ("/api/v1/rerank", {"documents": [{}]}, "documents[0] must not be blank or empty"),
        ("/rerank", {"texts": [["a"]]}, "texts must be an array of strings"),
        ("/rerank", {"raw_scores": 1}, "raw_scores must be a boolean"),
        ("/v1/ranking", {"passages": [{"image": DATA_URL}]}, "passages[0] has an image, and the model takes text only"),
    ],
)
async def test_invalid_bodies_get_400_with_a_message(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, fields: Body, message: str
) -> None:
    response = await client.post(path, json=BODIES[path](*TEXTS) | fields)
    assert (response.status_code, response.json()["message"]) == (400, message)
    assert not engine.batches


async def test_nim_responses_have_the_published_shape(client: httpx.AsyncClient) -> None:
    content = (await client.post("/v1/ranking", json=nim_body(TEXTS[0]))).json()
    score = pytest.approx(SCORES[0], abs=1e-6)
    tokens = len(TEXTS[0].split()) + 1 + len(QUERY.split())
    assert content == {
        "rankings": [{"index": 0, "logit": score}],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


@pytest.mark.parametrize("version", ["1", "2"])
async def test_cohere_responses_have_the_published_shape_and_jina_s_usage(
    client: httpx.AsyncClient, version: str
) -> None:
    documents = [TEXTS[0], {"text": TEXTS[1], "title": "kept"}]
    body = cohere_body(*documents, return_documents=True)
    response = await client.post(f"/v{version}/rerank", json=body, headers={"x-request-id": "r-1"})
    content = response.json()
    tokens = sum(len(text.split()) + 1 + len(QUERY.split()) for text in TEXTS[:2])
    results = {entry["index"]: entry["document"] for entry in content.pop("results")}
    assert results == {0: {"text": TEXTS[0]}, 1: documents[1]}
    assert content == {
        "id": "r-1",
        "model": RANK_MODEL.public_id,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1, "input_tokens": tokens, "image_tokens": 0},
        },
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


async def test_cohere_documents_are_returned_only_if_asked_for(client: httpx.AsyncClient) -> None:
    [entry] = (await client.post("/v1/rerank", json=cohere_body("a"))).json()["results"]
    assert entry.keys() == {"index", "relevance_score"}


@pytest.mark.parametrize(("count", "units"), [(1, 1), (100, 1), (101, 2)])
async def test_a_hundred_documents_are_one_search_unit(client: httpx.AsyncClient, count: int, units: int) -> None:
    content = (await client.post("/v2/rerank", json=cohere_body(*["a"] * count))).json()
    assert content["meta"]["billed_units"]["search_units"] == units


async def test_rank_fields_are_the_text_in_their_order(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    documents = [{"text": "t", "title": "T", "year": "1"}, {"text": "u"}, "plain"]
    body = cohere_body(*documents, rank_fields=["title", "text"])
    assert (await client.post("/v1/rerank", json=body)).status_code == 200
    assert list(engine.batches[0].items) == [TextItem("T\nt"), TextItem("u"), TextItem("plain")]


async def test_openrouter_responses_have_the_published_shape(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/api/v1/rerank", json=cohere_body(TEXTS[0], {"text": TEXTS[1]}), headers={"x-request-id": "r-1"}
    )
    content = response.json()
    assert {entry["index"]: entry["document"] for entry in content.pop("results")} == {
        0: {"text": TEXTS[0]},
        1: {"text": TEXTS[1]},
    }
    tokens = sum(len(text.split()) + 1 + len(QUERY.split()) for text in TEXTS[:2])
    assert content == {
        "id": "gen-rerank-r-1",
        "model": RANK_MODEL.public_id,
        "provider": "tessera",
        "usage": {"total_tokens": tokens, "cost": 0},
    }


async def test_openrouter_s_provider_preferences_hold(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/rerank", json=cohere_body("a", provider={"only": ["another"]}))
    assert (response.status_code, response.json()["error"]["param"]) == (404, "provider.only")
    assert (
        await client.post("/api/v1/rerank", json=cohere_body("a", provider={"order": ["Tessera"]}))
    ).status_code == 200


@pytest.mark.parametrize(
    ("raw", "expected"), [(None, sigmoid(SCORES[0])), (False, sigmoid(SCORES[0])), (True, SCORES[0])]
)
async def test_tei_s_scores_are_raw_if_asked_for(client: httpx.AsyncClient, raw: bool | None, expected: float) -> None:
    content = (await client.post("/rerank", json=tei_body(TEXTS[0], raw_scores=raw))).json()
    assert content == [{"index": 0, "score": pytest.approx(expected, abs=1e-6)}]


async def test_tei_s_texts_are_returned_if_asked_for(client: httpx.AsyncClient) -> None:
    content = (await client.post("/rerank", json=tei_body(*TEXTS, return_text=True))).json()
    assert [entry["text"] for entry in content] == [TEXTS[index] for index in BEST]


@pytest.fixture
def image_client(client: httpx.AsyncClient, engine: FakeEngine) -> httpx.AsyncClient:
    """A client of a server that ranks images as well."""
    engine.served = (IMAGE_RANK_MODEL,)
    return client


@pytest.mark.parametrize("path", ["/v1/ranking", "/v1/rerank", "/v2/rerank", "/api/v1/rerank"])
async def test_images_and_texts_with_images_are_ranked(
    image_client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    documents = [
        {"text": "a"},
        {"image": DATA_URL},
        {"text": "a page", "image": DATA_URL},
        {"text": "", "image": DATA_URL},
    ]
    body = BODIES[path](model=IMAGE_RANK_MODEL.public_id) | {DOCUMENTS[path]: documents}
    response = await image_client.post(path, json=body)
    items: list[Item] = [TextItem("a"), ImageItem(IMAGE), TextImageItem("a page", IMAGE), ImageItem(IMAGE)]
    assert list(engine.batches[0].items) == items
    scores = [fake_score(item, QUERY) for item in items]
    found = read_scores(path, response.json())
    assert [index for index, _ in found] == sorted(range(4), key=lambda index: -scores[index])


async def test_a_text_is_never_an_image(image_client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = cohere_body(DATA_URL, {"text": DATA_URL}, model=IMAGE_RANK_MODEL.public_id)
    assert (await image_client.post("/v2/rerank", json=body)).status_code == 200
    assert list(engine.batches[0].items) == [TextItem(DATA_URL), TextItem(DATA_URL)]


async def test_a_pdf_has_the_score_of_its_best_page(image_client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.make_score = lambda item, query: float(item.page % 3) if isinstance(item, ImageItem) else 1.5
    pdf = "data:application/pdf;base64," + base64.b64encode(make_pdf(["", "", ""])).decode()
    body = nim_body("a", model=IMAGE_RANK_MODEL.public_id)
    body["passages"].append({"image": pdf})
    content = (await image_client.post("/v1/ranking", json=body)).json()
    assert read_scores("/v1/ranking", content) == [(1, 2.0), (0, 1.5)]
    asked: list[EmbedBatch] = engine.batches
    assert [batch.query for batch in asked] == [QUERY, QUERY]


@pytest.mark.parametrize(
    ("passage", "message"),
    [
        ({"image": "data:image/png;base64,?"}, "passages[0] has an image data URL that is not valid base64"),
        (
            {"image": "data:application/pdf;base64,AAAA", "text": "a"},
            "passages[0] has text beside a PDF, which is ranked alone",
        ),
        ({"image": "a"}, None),
        ({"text": "a", "picture": DATA_URL}, 'passages must be an array of objects with "text", "image" or both'),
    ],
)
async def test_malformed_images_are_refused(
    image_client: httpx.AsyncClient, engine: FakeEngine, passage: Body, message: str | None
) -> None:
    body = nim_body(model=IMAGE_RANK_MODEL.public_id, passages=[passage])
    response = await image_client.post("/v1/ranking", json=body)
    assert response.status_code == 400
    assert response.json()["message"] == message or message is None
    assert response.json()["message"].startswith("passages")
    assert not engine.batches


async def test_lists_mark_the_models_that_rank(client: httpx.AsyncClient) -> None:
    models = (await client.get("/v1/models")).json()["data"]
    assert {model["id"]: model.get("task") for model in models} == {
        TEXT_MODEL.public_id: None,
        RANK_MODEL.public_id: "rank",
    }
    described = (await client.get("/v1/metadata")).json()["models"]
    assert [(model["task"], model["dimensions"]) for model in described] == [("embed", 384), ("rank", None)]
    listed = (await client.get("/api/v1/models")).json()["data"]
    assert [model["architecture"]["modality"] for model in listed] == ["text->embeddings", "text->rerank"]
    assert listed[1]["architecture"]["output_modalities"] == ["rerank"]
    embedding_models = (await client.get("/api/v1/embeddings/models")).json()
    assert ([model["id"] for model in embedding_models["data"]], embedding_models["total_count"]) == (
        [TEXT_MODEL.public_id],
        1,
    )
    info = (await client.get(f"/info?model={RANK_MODEL.public_id}")).json()
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}


async def test_a_ranking_is_counted_like_embeddings(client: httpx.AsyncClient) -> None:
    await client.post("/v2/rerank", json=cohere_body(*TEXTS))
    lines = (await client.get("/v1/metrics")).text.splitlines()
    model = f'model="{RANK_MODEL.public_id}"'
    assert f'tessera_requests_total{{dialect="cohere",{model},route="/v2/rerank",status="200"}} 1.0' in lines
    assert f"tessera_items_total{{{model}}} 3.0" in lines
    assert f'tessera_tokens_total{{modality="text",{model}}} {TOKENS}.0' in lines


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/rerank"])
async def test_documents_that_fail_are_listed_beside_the_others_if_that_is_asked_for(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.fail_item = lambda item: ItemFailure("text_too_long", "it is") if item == TextItem("long") else None
    body = BODIES[path](*TEXTS, "long", " ", on_error="item")
    response = await client.post(path, json=body)
    assert response.status_code == 200
    content = response.json()
    assert [index for index, _ in read_scores(path, content)] == BEST
    name = DOCUMENTS[path]
    assert [(entry["index"], entry["error"]["message"], entry["error"]["param"]) for entry in content["errors"]] == [
        (3, f"{name}[3]: it is", f"{name}[3]"),
        (4, f"{name}[4] must not be blank or empty", f"{name}[4]"),
    ]
    whole = await client.post(path, json=body | {"on_error": "request"})
    assert (whole.status_code, whole.json()["error"]["param"]) == (400, f"{name}[4]")
    fine = await client.post(path, json=BODIES[path](*TEXTS, on_error="item"))
    assert "errors" not in fine.json()
    none = await client.post(path, json=BODIES[path](" ", on_error="item"))
    assert (none.status_code, read_scores(path, none.json()), len(none.json()["errors"])) == (200, [], 1)
