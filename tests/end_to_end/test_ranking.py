"""Rankings through the whole service, in every dialect, against transformers."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.samples import RERANKER, TINY
from tests.export.tiny_rerankers import MAX_TOKENS, score_by_reference
from tests.sentences import load_sentences
from tests.service import Service

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
