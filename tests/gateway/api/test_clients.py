"""Real clients, unmodified, over a real socket."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import uvicorn
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from gateway.app import create_app
from gateway.edge.protocol import HttpProtocol
from gateway.settings import Settings
from gateway.types import ImageItem, TextItem
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine, fake_vector
from tests.gateway.requests import DATA_URL, IMAGE


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    config = uvicorn.Config(create_app(Settings(), FakeEngine()), log_config=None, loop="uvloop", http=HttpProtocol)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def openai_client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai_client_gets_the_engines_vectors(openai_client: openai.OpenAI, options: dict[str, Any]) -> None:
    answer = openai_client.embeddings.create(model=TEXT_MODEL.public_id, input=["a", "b"], **options)
    for text, entry in zip("ab", answer.data, strict=True):
        received = entry.embedding
        if isinstance(received, str):  # what was asked for in so many words is not decoded
            received = np.frombuffer(base64.b64decode(received), "<f4")
        np.testing.assert_array_equal(np.array(received, np.float32), fake_vector(TextItem(text), "passage", 384))
    assert answer.usage.prompt_tokens == 4


def test_openai_client_sends_tokens_dimensions_and_our_own_fields(openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(
        model=IMAGE_MODEL.public_id,
        input=[[1, 2], [3]],
        dimensions=256,
        user="a user",
        encoding_format="float",
        extra_body={"input_type": "query", "truncate": "END", "embedding_type": "binary"},
    )
    assert [len(entry.embedding) for entry in answer.data] == [32, 32]


def test_openai_client_sends_images(openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model=IMAGE_MODEL.public_id, input=DATA_URL)
    expected = fake_vector(ImageItem(IMAGE), "passage", 2048)
    np.testing.assert_array_equal(np.array(answer.data[0].embedding, np.float32), expected)


def test_openai_client_reads_our_errors(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        openai_client.embeddings.create(model="wrong-model", input="a")
    assert (unknown.value.param, unknown.value.type) == ("model", "not_found_error")
    with pytest.raises(openai.BadRequestError, match="must not be blank or empty") as blank:
        openai_client.embeddings.create(model=TEXT_MODEL.public_id, input=[" "])
    assert blank.value.param == "input[0]"
    assert blank.value.request_id


def test_openai_client_lists_models(openai_client: openai.OpenAI) -> None:
    assert {model.id for model in openai_client.models.list()} == {TEXT_MODEL.public_id, IMAGE_MODEL.public_id}


@pytest.mark.parametrize("suffix", ["", "-query"])
def test_openai_client_retrieves_a_model(openai_client: openai.OpenAI, suffix: str) -> None:
    assert openai_client.models.retrieve(IMAGE_MODEL.public_id + suffix).id == IMAGE_MODEL.public_id
    with pytest.raises(openai.NotFoundError) as unknown:
        openai_client.models.retrieve("no/such")
    assert unknown.value.param == "model"


@pytest.fixture
def cohere_client(base_url: str) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(base_url=base_url, api_key="any") as client:
        yield client


def test_cohere_client_gets_several_types_at_once(cohere_client: cohere.ClientV2) -> None:
    response = cohere_client.embed(
        model=IMAGE_MODEL.public_id,
        texts=["a", "b"],
        input_type="search_query",
        embedding_types=["float", "int8", "ubinary"],
        output_dimension=256,
    )
    embeddings = response.embeddings
    assert embeddings.float_ and embeddings.int8 and embeddings.ubinary and embeddings.uint8 is None
    assert [len(rows[1]) for rows in (embeddings.float_, embeddings.int8, embeddings.ubinary)] == [256, 256, 32]
    expected = fake_vector(TextItem("b"), "query", 2048)[:256]
    np.testing.assert_allclose(embeddings.float_[1], expected / np.linalg.norm(expected), atol=1e-6)
    assert response.texts == ["a", "b"]
    assert response.meta and response.meta.billed_units and response.meta.billed_units.input_tokens == 4


def test_cohere_client_sends_images(cohere_client: cohere.ClientV2) -> None:
    expected = fake_vector(ImageItem(IMAGE), "passage", 2048)
    by_image = cohere_client.embed(model=IMAGE_MODEL.public_id, images=[DATA_URL], input_type="image")
    block = {"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}
    by_input = cohere_client.embed(
        model=IMAGE_MODEL.public_id, inputs=[cohere.EmbedInput(**block)], input_type="search_document"
    )
    for response in (by_image, by_input):
        assert response.embeddings.float_
        np.testing.assert_array_equal(np.array(response.embeddings.float_[0], np.float32), expected)


def test_cohere_client_of_the_first_version_gets_a_list(base_url: str) -> None:
    with cohere.Client(base_url=base_url, api_key="any") as client:
        response = client.embed(model=TEXT_MODEL.public_id, texts=["a"] * 100, input_type="search_document")
    assert isinstance(response, cohere.EmbeddingsFloatsEmbedResponse)
    assert [len(vector) for vector in response.embeddings] == [384] * 100


def test_cohere_client_reads_our_errors(cohere_client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError) as blank:
        cohere_client.embed(model=TEXT_MODEL.public_id, texts=[" "], input_type="search_document")
    assert blank.value.body["message"] == "input[0] must not be blank or empty"
    with pytest.raises(cohere.NotFoundError) as unknown:
        cohere_client.embed(model="wrong-model", texts=["a"], input_type="search_document")
    assert unknown.value.body["message"].startswith("model 'wrong-model' not found")


@pytest.mark.parametrize("path", ["", "/embed"])
def test_hugging_face_client_gets_the_engines_vectors(base_url: str, path: str) -> None:
    client = InferenceClient(f"{base_url}{path}?model={TEXT_MODEL.public_id}")
    expected = [fake_vector(TextItem(text), "passage", 384) for text in "ab"]
    np.testing.assert_array_equal(client.feature_extraction(["a", "b"]), expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(client.feature_extraction("a"), expected[:1])


def test_hugging_face_client_sends_its_options(base_url: str) -> None:
    client = InferenceClient(f"{base_url}/embed?model={TEXT_MODEL.public_id}")
    vectors = client.feature_extraction(
        "a", normalize=True, prompt_name="query", truncate=True, truncation_direction="Left"
    )
    np.testing.assert_array_equal(vectors, [fake_vector(TextItem("a"), "query", 384)])


def test_hugging_face_client_reads_our_errors(base_url: str) -> None:
    client = InferenceClient(f"{base_url}/embed?model={TEXT_MODEL.public_id}")
    with pytest.raises(HfHubHTTPError, match="normalize must be true"):
        client.feature_extraction("a", normalize=False)


def test_announced_large_body_is_refused_before_it_is_sent(base_url: str) -> None:
    host, port = base_url.removeprefix("http://").split(":")
    headers = ("Host: a", "Content-Type: application/json", "Content-Length: 1000000000")
    head = "\r\n".join(("POST /v1/embeddings HTTP/1.1", *headers, "", ""))
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("junk", [b"GARBAGE\r\n\r\n", b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: abc\r\n\r\n"])
def test_broken_http_does_not_affect_other_connections(base_url: str, junk: bytes) -> None:
    host, port = base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(junk)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{base_url}/v1/health/live").status_code == 200
