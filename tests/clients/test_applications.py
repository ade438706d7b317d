"""Open WebUI and Dify, by the requests that their source code sends."""

import httpx
import pytest

from tests.clients.api import Api, assert_same_vectors
from tests.clients.applications import embed_image_with_dify, embed_with_dify, embed_with_open_webui, read_settings
from tests.clients.pending import pending
from tests.end_to_end.samples import IMAGE_URL, MINILM, TINY

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

TEXTS = [f"Document {number} of a knowledge base" for number in range(70)]
QUERY = "Which document?"


@pytest.mark.parametrize("model", [MINILM, TINY])
def test_open_webui_marks_documents_and_queries(api: Api, model: str) -> None:
    settings = read_settings("Open WebUI", "=", api.url, RAG_EMBEDDING_MODEL=model)
    documents = embed_with_open_webui(settings, TEXTS, "CONTENT")
    assert_same_vectors(documents, api.embed(model, TEXTS, input_type="passage"))
    [query] = embed_with_open_webui(settings, [QUERY], "QUERY")
    assert_same_vectors([query], api.embed(model, [QUERY], input_type="query"))


def test_dify_embeds_batches(api: Api) -> None:
    vectors, tokens = embed_with_dify(read_settings("Dify", ":", api.url), TEXTS)
    assert_same_vectors(vectors, api.embed(MINILM, TEXTS))
    assert tokens > 5 * len(TEXTS)


@pending("Dify, images")
def test_dify_embeds_an_image_with_its_text(api: Api) -> None:
    settings = read_settings("Dify", ":", api.url) | {"Model Name": TINY}
    vector = embed_image_with_dify(settings, IMAGE_URL, "a page")
    parts = [{"type": "image_url", "image_url": {"url": IMAGE_URL}}, {"type": "text", "text": "a page"}]
    assert_same_vectors([vector], api.embed(TINY, [{"content": parts}]))


def test_a_long_document_ends_the_batch_with_a_message_that_says_why(api: Api) -> None:
    with pytest.raises(httpx.HTTPStatusError) as raised:
        embed_with_dify(read_settings("Dify", ":", api.url), [*TEXTS[:3], "long " * 500])
    message = raised.value.response.json()["error"]["message"]
    assert message == "input[3]: 502 tokens exceed the limit of 256; truncate END or START cuts them"
