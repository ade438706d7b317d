"""The ensembles, called by tritonclient without the gateway: a failing item or request does not affect the others."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.end_to_end.samples import read_image
from tests.service import Service
from tests.triton_requests import infer

pytestmark = pytest.mark.triton

TEXT = "all_minilm_l6_v2_text"
EMBEDDER = "all_minilm_l6_v2_embedder"


def test_a_text_request_returns_embeddings_and_token_counts(triton: InferenceServerClient, reference: Any) -> None:
    result = infer(triton, TEXT, text=["Dogs are loyal companions", "x"], input_type=["passage"])
    assert result["embeddings"].shape == (2, 384) and result["embeddings"].dtype == np.float32
    assert result["token_counts"].tolist() == [6, 3] and result["token_counts"].dtype == np.int32
    np.testing.assert_allclose(result["embeddings"][0], reference[37], atol=1e-4)


def test_a_failed_item_is_nan_and_has_an_error(triton: InferenceServerClient) -> None:
    result = infer(triton, TEXT, text=["fine", "long " * 300, "fine"])
    assert [error.decode().partition(":")[0] for error in result["errors"]] == ["", "text_too_long", ""]
    assert np.isnan(result["embeddings"][1]).all()
    alone = infer(triton, TEXT, text=["fine"])["embeddings"][0]
    np.testing.assert_allclose(result["embeddings"][[0, 2]], [alone, alone], atol=1e-5)


def test_a_request_in_which_every_item_fails_is_refused(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="text_too_long: 302 tokens") as refused:
        infer(triton, TEXT, text=["long " * 300])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def load_tokenizer(repository: Path, model: str) -> Tokenizer:
    return Tokenizer.from_file(str(repository / f"{model}_preprocess_text" / "1" / "tokenizer.json"))


def send_token_ids(triton: InferenceServerClient, ids: list[list[int]], **options: Any) -> dict[str, Any]:
    """Embed items given as token ids, after one given as text."""
    counts = np.array([0, *map(len, ids)], np.int32)
    texts = ["hello", *[""] * len(ids)]
    token_ids = np.concatenate([np.array(each, np.int64) for each in ids])
    return infer(triton, TEXT, text=texts, token_ids=token_ids, token_id_counts=counts, **options)


def test_own_token_ids_are_embedded_like_their_text_and_others_refused(
    triton: InferenceServerClient, repository: Path, sentences: list[str]
) -> None:
    own, other = (load_tokenizer(repository, model) for model in ("all_minilm_l6_v2", "tiny_checkpoint"))
    texts = [sentence for sentence in sentences if 8 <= len(own.encode(sentence).ids) <= 120][:60]
    accepted = send_token_ids(triton, [own.encode(text).ids for text in texts])
    assert set(accepted["errors"].tolist()) == {b""}
    expected = infer(triton, TEXT, text=["hello", *texts])["embeddings"]
    np.testing.assert_allclose(accepted["embeddings"], expected, atol=1e-5)
    foreign = [ids for text in texts if len(ids := other.encode(text, add_special_tokens=False).ids) <= 250]
    refused = send_token_ids(triton, foreign)["errors"].tolist()
    assert refused[0] == b""
    assert {error.partition(b":")[0] for error in refused[1:]} == {b"token_id_invalid"}
    assert all(b"check_embedding_ctx_length=False" in error for error in refused[1:])
    allowed = send_token_ids(triton, foreign, token_id_policy=["any"])
    assert set(allowed["errors"].tolist()) == {b""}


def test_tokens_before_truncation_are_reported(triton: InferenceServerClient) -> None:
    result = infer(triton, TEXT, text=["fine", "long " * 300], truncate=["END"])
    assert result["token_counts"].tolist() == [3, 256]
    assert result["untruncated_token_counts"].tolist() == [3, 302]
    assert result["untruncated_token_counts"].dtype == np.int32


MALFORMED = {
    "no rows": (np.zeros(0, np.int64), np.zeros(1, np.int32)),
    "too few tokens": (np.array([101, 102], np.int64), np.array([5], np.int32)),
    "too many tokens": (np.array([101, 102, 102], np.int64), np.array([2], np.int32)),
    "negative length": (np.array([101, 102], np.int64), np.array([4, -2], np.int32)),
    "id out of vocabulary": (np.array([101, 10**9, 102], np.int64), np.array([3], np.int32)),
}


@pytest.mark.skipif("NATIVE_BACKEND" in os.environ, reason="Triton's own backend trusts its callers (docs/contract.md)")
@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_does_not_affect_its_batch(
    service: Service, triton: InferenceServerClient, malformed: tuple[Any, Any]
) -> None:
    """Send malformed requests straight to the embedder, batched together with valid ones."""
    ids, lengths = np.array([101, 7592, 102], np.int64), np.array([3], np.int32)
    expected = infer(triton, EMBEDDER, input_ids=ids, sequence_lengths=lengths)["embeddings"]

    def send(index: int) -> None:
        with InferenceServerClient(service.grpc_url) as client:
            if index % 3 == 0:
                with pytest.raises(InferenceServerException):
                    infer(client, EMBEDDER, input_ids=malformed[0], sequence_lengths=malformed[1])
            else:
                result = infer(client, EMBEDDER, input_ids=ids, sequence_lengths=lengths)
                np.testing.assert_allclose(result["embeddings"], expected, atol=1e-5)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(48)))


NO_IDS, HUGE = np.zeros(0, np.int64), np.iinfo(np.int64).max
PNG = read_image(0)
MALFORMED_ENSEMBLE_REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("text", {"text": ["fine", "long " * 20_000], "truncate": ["NONE"]}),
    ("text", {"text": ["fine", b"\xff"]}),
    ("text", {"text": []}),
    ("text", {"text": ["fine"], "truncate": ["SIDEWAYS"]}),
    (
        "text",
        {"text": ["fine", ""], "token_ids": np.array([5, -1, HUGE]), "token_id_counts": np.array([0, 3], np.int32)},
    ),
    ("text", {"text": [""], "token_ids": np.array([5, 6]), "token_id_counts": np.array([9], np.int32)}),
    ("text", {"text": ["", ""], "token_ids": np.array([5, 6]), "token_id_counts": np.array([4, -2], np.int32)}),
    ("text", {"text": ["fine"], "token_ids": NO_IDS, "token_id_counts": np.array([0], np.int32)}),
    ("image", {"image": [PNG, PNG[:100]]}),
    ("image", {"image": [PNG, b"", b"GIF89a"]}),
    ("image", {"image": []}),
    ("image", {"image": [PNG], "text": ["one", "two"]}),
    ("image", {"image": [PNG, PNG], "text": ["long " * 20_000, b"\xff"]}),
    ("image", {"image": [PNG, PNG], "page": np.array([0, -7], np.int32)}),
]


def test_no_request_to_an_ensemble_affects_its_neighbours(service: Service) -> None:
    """Whatever backend runs the graphs: what reaches them through an ensemble was made by its first step."""
    valid: list[tuple[str, dict[str, Any]]] = [
        ("text", {"text": ["a short text", "another"]}),
        ("image", {"image": [PNG], "text": ["with text"]}),
    ]
    requests = [request for malformed in MALFORMED_ENSEMBLE_REQUESTS for request in (*valid, malformed, *valid)]
    with InferenceServerClient(service.grpc_url) as client:
        expected = {modality: infer(client, f"tiny_checkpoint_{modality}", **inputs) for modality, inputs in valid}

    def send(request: tuple[str, dict[str, Any]]) -> None:
        modality, inputs = request
        with InferenceServerClient(service.grpc_url) as client:
            if any(request is each for each in valid):
                result = infer(client, f"tiny_checkpoint_{modality}", **inputs)
                np.testing.assert_allclose(result["embeddings"], expected[modality]["embeddings"], atol=1e-5)
                return
            try:
                result = infer(client, f"tiny_checkpoint_{modality}", **inputs)
            except InferenceServerException as error:
                assert error.status() == "StatusCode.INVALID_ARGUMENT"
                return
            failed = result["errors"] != b""
            np.testing.assert_array_equal(np.isnan(result["embeddings"]).any(axis=1), failed)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, requests * 3))
