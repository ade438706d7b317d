"""Extensions of the published APIs on the real service: checked token ids, truncation, errors per item, tokenising."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.end_to_end.samples import MINILM, TINY, TINY_CHECKPOINT
from tests.service import Service

pytestmark = pytest.mark.triton

IMAGE_URL = "data:image/png;base64," + base64.b64encode((TINY_CHECKPOINT / "images" / "0.png").read_bytes()).decode()


def post(service: Service, path: str = "/v1/embeddings", headers: dict[str, str] | None = None, **body: Any) -> Any:
    return httpx.post(f"{service.http_url}{path}", json={"model": MINILM, **body}, headers=headers, timeout=60)


def token_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def test_the_models_own_token_ids_get_the_vectors_of_their_texts(
    service: Service, checkpoint: Path, sentences: list[str]
) -> None:
    by_text = post(service, input=sentences, truncate="END").json()["data"]
    response = post(service, input=token_ids(checkpoint, sentences), truncate="END")
    assert response.status_code == 200, response.text
    by_ids = response.json()["data"]
    for one, other in zip(by_text, by_ids, strict=True):
        np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-5)


def test_token_ids_of_another_tokenizer_are_refused(service: Service, sentences: list[str]) -> None:
    long = [sentence for sentence in sentences if len(sentence.split()) > 5]
    foreign = [[token_id % 30_000 for token_id in ids] for ids in token_ids(TINY_CHECKPOINT, long)]
    answers = post(service, input=foreign, on_error="item").json()["data"]
    assert len(answers) > 20
    refused = [answer["error"] for answer in answers if answer["embedding"] is None]
    assert len(refused) == len(answers)
    assert all("check_embedding_ctx_length=False" in error["message"] for error in refused)


def test_what_was_cut_is_reported_and_tokenizing_says_it_before(service: Service) -> None:
    texts = ["short", "word " * 400]
    tokenized = post(service, "/v1/tokenize", input=texts).json()
    assert [(item["tokens"], item["kept"]) for item in tokenized["data"]] == [(3, 3), (402, 256)]
    assert (tokenized["max_tokens"], len(tokenized["data"][1]["token_ids"])) == (256, 256)
    response = post(service, input=texts, truncate="END")
    assert response.json()["usage"]["truncated"] == [{"index": 1, "tokens": 402, "kept": 256}]
    assert response.headers["x-truncated-items"] == "1"
    assert response.json()["usage"]["total_tokens"] == sum(item["kept"] for item in tokenized["data"])


def test_tokenizing_counts_tiles_without_inference(service: Service) -> None:
    items = [{"content": [{"type": "image_url", "image_url": {"url": IMAGE_URL}}]}, "a text", " "]
    tokenized = post(service, "/v1/tokenize", model=TINY, input=items).json()["data"]
    usage = post(service, model=TINY, input=items[:2]).json()["usage"]
    assert tokenized[0]["image_tokens"] == usage["prompt_tokens_details"]["image_tokens"] == tokenized[0]["tiles"] * 256
    assert sum(item["tokens"] for item in tokenized) == usage["total_tokens"]
    assert tokenized[2]["error"]["param"] == "input[2]"


def test_good_items_are_embedded_beside_bad_ones(service: Service) -> None:
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nbroken").decode()
    items = ["a text", broken, IMAGE_URL, "word " * 20_000]
    data = post(service, model=TINY, input=items, on_error="item").json()["data"]
    assert [entry["embedding"] is None for entry in data] == [False, True, False, True]
    assert [entry["error"]["param"] for entry in (data[1], data[3])] == ["input[1]", "input[3]"]
    for index in (0, 2):
        alone = post(service, model=TINY, input=items[index]).json()["data"][0]["embedding"]
        np.testing.assert_allclose(data[index]["embedding"], alone, atol=1e-5)


def test_fingerprint_of_the_vectors_is_the_models(service: Service) -> None:
    metadata = httpx.get(f"{service.http_url}/v1/metadata", params={"model": MINILM}).json()
    fingerprint = metadata["models"][0]["fingerprint"]
    assert post(service, input="a").headers["x-embedding-fingerprint"] == fingerprint
    assert post(service, input="a", headers={"x-embedding-fingerprint": fingerprint}).status_code == 200
    assert post(service, input="a", headers={"x-embedding-fingerprint": "other"}).status_code == 409
