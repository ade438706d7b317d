"""Rerankers of every architecture side by side in one Triton, alone and under load, against transformers."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.export.tiny_bert import write_tiny_bert
from tests.export.tiny_rerankers import MAX_TOKENS, RERANKERS, score_by_reference
from tests.sentences import load_sentences
from tests.service import PROJECT, Service, run_service
from tests.triton_requests import infer

pytestmark = [pytest.mark.triton, pytest.mark.slow]

QUERY = "How far away is the moon?"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: write(folder / kind) for kind, write in RERANKERS.items()}


@pytest.fixture(scope="module")
def service(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("models") / "repository"
    embedder = write_tiny_bert(tmp_path_factory.mktemp("embedder") / "tiny-bert")
    for kind, folder in (checkpoints | {"embedder": embedder}).items():
        arguments = [str(folder), "--name", f"tiny/{kind}", "--repository", str(repository)]
        subprocess.run([sys.executable, "-m", "export", *arguments], cwd=PROJECT, check=True)
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def triton(service: Service) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(service.grpc_url) as client:
        yield client


def rank(client: InferenceServerClient, kind: str, query: Any, texts: list[Any], **options: Any) -> dict[str, Any]:
    return infer(client, f"{kind.replace('-', '_')}_rank", query=[query], text=texts, **options)


def test_scores_equal_transformers_under_load(service: Service, checkpoints: dict[str, Path]) -> None:
    texts = [sentence[: 3 + 7 * index % 90] for index, sentence in enumerate(load_sentences()[:24])]
    queries = [QUERY, "x", "[SEP] and [CLS] are text"]
    expected = {
        (kind, query): score_by_reference(folder, query, texts)
        for kind, folder in checkpoints.items()
        for query in queries
    }
    cuts = list(itertools.pairwise([0, 1, 4, 9, len(texts)]))

    def check(task: tuple[tuple[str, str], tuple[int, int]]) -> None:
        (kind, query), (start, stop) = task
        with InferenceServerClient(service.grpc_url) as client:
            result = rank(client, kind, query, texts[start:stop])
        assert result["scores"].shape == (stop - start,) and result["scores"].dtype == np.float32
        np.testing.assert_allclose(result["scores"], expected[kind, query][start:stop], atol=1e-4)
        assert set(result["errors"].tolist()) == {b""}

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(check, list(itertools.product(expected, cuts)) * 3))


@pytest.mark.parametrize("kind", RERANKERS)
def test_a_failed_item_is_nan_and_only_the_document_is_cut(triton: InferenceServerClient, kind: str) -> None:
    result = rank(triton, kind, QUERY, ["fine", "long " * 300, b"\xff", "fine"])
    assert [error.decode().partition(":")[0] for error in result["errors"]] == ["", "text_too_long", "text_invalid", ""]
    assert np.isnan(result["scores"]).tolist() == [False, True, True, False]
    cut = rank(triton, kind, QUERY, ["fine", "long " * 300], truncate=["END"])
    assert cut["token_counts"][1] == MAX_TOKENS < cut["untruncated_token_counts"][1]
    np.testing.assert_allclose(cut["scores"][0], result["scores"][0], atol=1e-5)


@pytest.mark.parametrize("kind", RERANKERS)
def test_a_query_without_room_for_a_document_fails_the_request(triton: InferenceServerClient, kind: str) -> None:
    for truncate in ("NONE", "END", "START"):
        with pytest.raises(InferenceServerException, match="text_too_long: the query takes"):
            rank(triton, kind, "long " * 300, ["a", "b"], truncate=[truncate])
    with pytest.raises(InferenceServerException, match="text_invalid: the query must be UTF-8"):
        rank(triton, kind, b"\xff", ["a", "b"])
