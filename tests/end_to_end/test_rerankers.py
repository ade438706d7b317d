"""Rerankers of every architecture side by side in one Triton, alone and under load, against transformers."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from tests.end_to_end.samples import TINY_CHECKPOINT, read_image
from tests.export.tiny_bert import write_tiny_bert
from tests.export.tiny_rerankers import MAX_TOKENS, RERANKERS, score_by_reference, score_with_images
from tests.sentences import load_sentences
from tests.service import Service, export_all, run_service
from tests.triton_requests import infer

pytestmark = [pytest.mark.triton, pytest.mark.slow]

QUERY = "How far away is the moon?"
IMAGES = TINY_CHECKPOINT / "images"
WIDTHS = Widths(hidden_size=96, heads=6, kv_heads=3, layers=3, intermediate_size=112, vision_layers=1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: write(folder / kind) for kind, write in RERANKERS.items()}


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multimodal") / "vl"
    write_checkpoint(folder, WIDTHS, seed=7, reranker=True)
    return folder


@pytest.fixture(scope="module")
def service(
    checkpoints: dict[str, Path], multimodal: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("models") / "repository"
    embedder = write_tiny_bert(tmp_path_factory.mktemp("embedder") / "tiny-bert")
    for kind, folder in (checkpoints | {"vl": multimodal, "embedder": embedder}).items():
        export_all({f"tiny/{kind}": folder}, repository, *(["--task", "rank"] if kind == "qwen3" else []))
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
    result = rank(triton, kind, QUERY, ["fine", "long " * 900, b"\xff", "fine"])
    assert [error.decode().partition(":")[0] for error in result["errors"]] == ["", "text_too_long", "text_invalid", ""]
    assert np.isnan(result["scores"]).tolist() == [False, True, True, False]
    cut = rank(triton, kind, QUERY, ["fine", "long " * 900], truncate=["END"])
    assert cut["token_counts"][1] == MAX_TOKENS < cut["untruncated_token_counts"][1]
    np.testing.assert_allclose(cut["scores"][0], result["scores"][0], atol=1e-5)


@pytest.mark.parametrize("kind", RERANKERS)
def test_a_query_without_room_for_a_document_fails_the_request(triton: InferenceServerClient, kind: str) -> None:
    for truncate in ("NONE", "END", "START"):
        with pytest.raises(InferenceServerException, match="text_too_long: the query takes"):
            rank(triton, kind, "long " * 900, ["a", "b"], truncate=[truncate])
    with pytest.raises(InferenceServerException, match="text_invalid: the query must be UTF-8"):
        rank(triton, kind, b"\xff", ["a", "b"])


def test_scores_of_images_and_texts_equal_the_reference_under_load(service: Service, multimodal: Path) -> None:
    texts = ["", "a caption", "", "another, longer than the first", ""]
    images = [0, 4, 1, 3, 0]
    documents = ["fine", "x", "two words", "line\nbreak"]
    queries = ["What is shown here?", "ends with spaces  ", "1 \n \n passage:"]
    seen = {
        query: score_with_images(multimodal, query, [IMAGES / f"{i}.png" for i in images], texts) for query in queries
    }
    read = {query: score_with_images(multimodal, query, [None] * len(documents), documents) for query in queries}
    files = [read_image(index) for index in images]

    def check(task: tuple[str, tuple[int, int]]) -> None:
        query, (start, stop) = task
        with InferenceServerClient(service.grpc_url) as client:
            shown = infer(client, "vl_rank_image", query=[query], image=files[start:stop], text=texts[start:stop])
            texts_only = infer(client, "vl_rank", query=[query], text=documents)
        np.testing.assert_allclose(shown["scores"], seen[query][start:stop], atol=2e-4)
        np.testing.assert_allclose(texts_only["scores"], read[query], atol=1e-4)
        assert (shown["image_token_counts"] == 256 * shown["tile_counts"]).all()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check, list(itertools.product(queries, [(0, 1), (1, 3), (0, 5)])) * 2))


def test_a_bad_image_does_not_affect_the_others(triton: InferenceServerClient) -> None:
    good = read_image(0)
    result = infer(triton, "vl_rank_image", query=["q"], image=[good, good[:100], good], text=["a", "b", b"\xff"])
    assert [error.decode().partition(":")[0] for error in result["errors"]] == ["", "image_invalid", "text_invalid"]
    assert np.isnan(result["scores"]).tolist() == [False, True, True]
    assert result["tile_counts"].tolist() == [1, 0, 0]
    alone = infer(triton, "vl_rank_image", query=["q"], image=[good], text=["a"])
    np.testing.assert_allclose(result["scores"][0], alone["scores"][0], atol=1e-5)
    with pytest.raises(InferenceServerException, match="text_invalid: the query must be UTF-8"):
        infer(triton, "vl_rank_image", query=[b"\xff"], image=[good])
