"""Cohere's, vLLM's and Text Embeddings Inference's requests on the real service, compared with OpenAI's."""

from typing import Any

import cohere
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from huggingface_hub import InferenceClient

from tests.end_to_end.samples import IMAGE_URL, MINILM, TINY
from tests.service import Service

pytestmark = pytest.mark.triton

TEXTS = ["What is NVIDIA?", "Привет, мир"]
IMAGE_PART = {"type": "image_url", "image_url": {"url": IMAGE_URL}}
TEXT_PART = {"type": "text", "text": "a page"}


def embed(service: Service, **body: Any) -> npt.NDArray[np.float32]:
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return np.array([entry["embedding"] for entry in response.json()["data"]], np.float32)


def test_cohere_client_gets_all_types_of_the_same_vectors(service: Service) -> None:
    with cohere.ClientV2(base_url=service.http_url, api_key="none") as client:
        response = client.embed(
            model=MINILM,
            texts=TEXTS,
            input_type="search_document",
            embedding_types=["float", "int8", "ubinary"],
            output_dimension=128,
        )
    vectors = np.array(response.embeddings.float_, np.float32)
    np.testing.assert_allclose(vectors, embed(service, model=MINILM, input=TEXTS, dimensions=128), atol=1e-5)
    np.testing.assert_array_equal(response.embeddings.int8, np.trunc(127 * vectors.astype(float)))
    np.testing.assert_array_equal(response.embeddings.ubinary, np.packbits(vectors > 0, axis=1))


def test_cohere_client_truncates_a_long_text_by_default(service: Service) -> None:
    with cohere.ClientV2(base_url=service.http_url, api_key="none") as client:
        response = client.embed(model=MINILM, texts=["long " * 300], input_type="search_document")
    expected = embed(service, model=MINILM, input=["long " * 300], truncate="END")
    np.testing.assert_allclose(np.array(response.embeddings.float_, np.float32), expected, atol=1e-5)


@pytest.mark.parametrize("content", [[IMAGE_PART], [IMAGE_PART, TEXT_PART], [TEXT_PART]])
def test_a_message_and_a_cohere_input_equal_their_content_block(service: Service, content: list[Any]) -> None:
    expected = embed(service, model=TINY, input=[{"content": content}])
    messages = [{"role": "user", "content": content}]
    np.testing.assert_allclose(embed(service, model=TINY, messages=messages), expected, atol=1e-5)
    body = {"model": TINY, "inputs": [{"content": content}]}
    response = httpx.post(f"{service.http_url}/v2/embed", json=body, timeout=60)
    np.testing.assert_allclose(np.array(response.json()["embeddings"]["float"], np.float32), expected, atol=1e-5)


def test_role_of_a_message_adds_the_models_prefix(service: Service) -> None:
    for role, input_type in (("query", "query"), ("document", "passage")):
        by_role = embed(service, model=TINY, messages=[{"role": role, "content": "a page"}])
        np.testing.assert_allclose(
            by_role, embed(service, model=TINY, input="a page", input_type=input_type), atol=1e-5
        )


def test_vllms_truncation_cuts_at_the_models_limit(service: Service) -> None:
    text = "first " * 200 + "last " * 200
    for side, truncate in (("left", "START"), ("right", "END")):
        cut = embed(service, model=MINILM, input=text, truncate_prompt_tokens=-1, truncation_side=side)
        np.testing.assert_allclose(cut, embed(service, model=MINILM, input=text, truncate=truncate), atol=1e-5)


def test_hugging_face_client_gets_the_same_vectors(service: Service) -> None:
    client = InferenceClient(f"{service.http_url}/embed?model={MINILM}")
    expected = embed(service, model=MINILM, input=TEXTS)
    np.testing.assert_allclose(client.feature_extraction(TEXTS, truncate=True), expected, atol=1e-5)  # type: ignore[arg-type]


def test_info_has_the_models_limit(service: Service) -> None:
    info = httpx.get(f"{service.http_url}/info?model={MINILM}").json()
    assert (info["model_id"], info["max_input_length"], info["model_dtype"]) == (MINILM, 256, "float32")
