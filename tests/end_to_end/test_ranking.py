"""Rankings through the whole service, in every dialect, against transformers."""

import base64
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from tests.end_to_end.samples import RERANKER, TINY, TINY_CHECKPOINT, image_url
from tests.export.tiny_rerankers import MAX_TOKENS, score_by_reference, score_with_images
from tests.pdf_files import fill, make_pdf
from tests.sentences import load_sentences
from tests.service import Service, export_all, run_service

pytestmark = [pytest.mark.triton, pytest.mark.slow]

QUERY = "How far away is the moon?"
TEXTS = load_sentences()[:12]


def post(service: Service, path: str, **body: Any) -> Any:
    response = httpx.post(f"{service.http_url}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def rank_in_all_dialects(service: Service, query: str, texts: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Return each document's index and score, the most relevant first; TEI's by its sigmoid and as it is."""
    named = {"model": RERANKER, "query": query, "documents": texts}
    nim = post(
        service, "/v1/ranking", model=RERANKER, query={"text": query}, passages=[{"text": each} for each in texts]
    )
    rankings = {"nim": [(entry["index"], entry["logit"]) for entry in nim["rankings"]]}
    for path in ("/v1/rerank", "/v2/rerank", "/api/v1/rerank"):
        results = post(service, path, **named)["results"]
        rankings[path] = [(entry["index"], entry["relevance_score"]) for entry in results]
    for raw in (False, True):
        ranks = post(service, "/rerank", query=query, texts=texts, raw_scores=raw)
        rankings[f"tei, raw: {raw}"] = [(entry["index"], entry["score"]) for entry in ranks]
    return rankings


def test_every_dialect_has_the_scores_of_transformers(ranking_service: Service, reranker: Path) -> None:
    scores = score_by_reference(reranker, QUERY, TEXTS).tolist()
    relevances = [1 / (1 + math.exp(-score)) for score in scores]
    for dialect, ranking in rank_in_all_dialects(ranking_service, QUERY, TEXTS).items():
        expected = scores if dialect in ("nim", "tei, raw: True") else relevances
        assert sorted(index for index, _ in ranking) == list(range(len(TEXTS)))
        assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)
        assert [score for _, score in ranking] == pytest.approx([expected[index] for index, _ in ranking], abs=1e-4)


def test_requests_side_by_side_do_not_mix_their_queries(ranking_service: Service, reranker: Path) -> None:
    queries = [QUERY, "x", "Is it a cat?", "[SEP] and [CLS] are text"] * 8

    def check(query: str) -> None:
        body = {"model": RERANKER, "query": {"text": query}, "passages": [{"text": text} for text in TEXTS[:3]]}
        rankings = post(ranking_service, "/v1/ranking", **body)["rankings"]
        found = {entry["index"]: entry["logit"] for entry in rankings}
        assert found == pytest.approx(dict(enumerate(expected[query])), abs=1e-4)

    expected = {query: score_by_reference(reranker, query, TEXTS[:3]).tolist() for query in set(queries)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check, queries))


def test_many_documents_are_ranked_in_chunks(ranking_service: Service) -> None:
    texts = [f"{TEXTS[number % len(TEXTS)]} {number}" for number in range(300)]
    body = {"model": RERANKER, "query": QUERY}
    many = post(ranking_service, "/v2/rerank", documents=texts, **body)["results"]
    assert sorted(entry["index"] for entry in many) == list(range(300))
    for entry in (many[0], many[150], many[-1]):
        [alone] = post(ranking_service, "/v2/rerank", documents=[texts[entry["index"]]], **body)["results"]
        assert alone["relevance_score"] == pytest.approx(entry["relevance_score"], abs=1e-5)


def test_only_documents_are_cut(ranking_service: Service) -> None:
    passages = [{"text": "fine"}, {"text": "long " * MAX_TOKENS}]
    body = {"model": RERANKER, "query": {"text": QUERY}, "passages": passages}
    cut = post(ranking_service, "/v1/ranking", truncate="END", **body)
    assert len(cut["rankings"]) == 2
    url = f"{ranking_service.http_url}/v1/ranking"
    refused = httpx.post(url, json=body)
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("passages[1]: ")
    long_query = httpx.post(url, json=body | {"query": {"text": "long " * MAX_TOKENS}, "truncate": "END"})
    assert long_query.status_code == 400
    assert "the query" in long_query.json()["message"]


def test_models_are_ready_and_told_apart(ranking_service: Service) -> None:
    assert httpx.get(f"{ranking_service.http_url}/v1/health/ready").json()["ready"]
    models = httpx.get(f"{ranking_service.http_url}/v1/models").json()["data"]
    assert {model["id"]: model.get("task") for model in models} == {RERANKER: "rank", TINY: None}
    refused = httpx.post(f"{ranking_service.http_url}/v1/embeddings", json={"model": RERANKER, "input": "a"})
    assert refused.json()["message"] == f"model '{RERANKER}' ranks and cannot embed; models that can: '{TINY}'"


IMAGE_RERANKER = "tiny/vl-reranker"
WIDTHS = Widths(hidden_size=96, heads=6, kv_heads=3, layers=3, intermediate_size=112, vision_layers=1)


@pytest.fixture(scope="module")
def image_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image_reranker") / "vl"
    write_checkpoint(folder, WIDTHS, seed=7, reranker=True)
    return folder


@pytest.fixture(scope="module")
def image_service(image_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("image_models") / "repository"
    export_all({IMAGE_RERANKER: image_reranker}, repository)
    with run_service(repository, tmp_path_factory.mktemp("image_service")) as running:
        yield running


def rank_passages(service: Service, passages: list[dict[str, str]]) -> dict[int, float]:
    """Return the scores of the passages by their index."""
    content = post(service, "/v1/ranking", model=IMAGE_RERANKER, query={"text": QUERY}, passages=passages)
    return {entry["index"]: entry["logit"] for entry in content["rankings"]}


def test_images_and_texts_have_the_scores_of_the_reference(image_service: Service, image_reranker: Path) -> None:
    images, texts = [0, 4, None, 1, None], ["", "a caption", "two words", "", "fine"]
    documents = [
        ({"text": text} if text else {}) | ({} if image is None else {"image": image_url(image)})
        for image, text in zip(images, texts, strict=True)
    ]
    files = [None if image is None else TINY_CHECKPOINT / "images" / f"{image}.png" for image in images]
    expected = score_with_images(image_reranker, QUERY, files, texts).tolist()
    assert rank_passages(image_service, documents) == pytest.approx(dict(enumerate(expected)), abs=2e-4)
    for path in ("/v1/rerank", "/v2/rerank", "/api/v1/rerank"):
        body = {"model": IMAGE_RERANKER, "query": QUERY, "documents": documents}
        found = {entry["index"]: entry["relevance_score"] for entry in post(image_service, path, **body)["results"]}
        relevances = [1 / (1 + math.exp(-score)) for score in expected]
        assert found == pytest.approx(dict(enumerate(relevances)), abs=1e-4)


def test_a_pdf_has_the_score_of_its_best_page(image_service: Service) -> None:
    pages = [fill(1, 0, 0), fill(0, 0, 1)]
    pdfs = [make_pdf([pages[0]]), make_pdf([pages[1]]), make_pdf(pages)]
    urls = ["data:application/pdf;base64," + base64.b64encode(pdf).decode() for pdf in pdfs]
    scores = rank_passages(image_service, [{"image": url} for url in urls])
    assert abs(scores[0] - scores[1]) > 1e-3
    assert scores[2] == pytest.approx(max(scores[0], scores[1]), abs=1e-4)


def test_a_bad_image_is_named(image_service: Service) -> None:
    body = {
        "model": IMAGE_RERANKER,
        "query": {"text": QUERY},
        "passages": [{"text": "a"}, {"image": image_url(0)[:200]}],
    }
    refused = httpx.post(f"{image_service.http_url}/v1/ranking", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "passages[1]")
