"""Clients that send token ids: those of OpenAI's tokenizer, or floats."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.api import Api, assert_same_vectors
from tests.clients.conftest import Install
from tests.clients.pending import pending
from tests.clients.runs import Result, run_python
from tests.end_to_end.samples import MINILM
from tests.service import Service, run_gateway

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

# Their ids in cl100k_base are small: most models have tokens with these ids, though not the same ones.
TEXTS = ["Hello World", "The test of the search"]

LANGCHAIN_AT_ITS_DEFAULTS = f"""
from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(base_url="%s/v1", api_key="none", model={MINILM!r})
vectors, query = embeddings.embed_documents({TEXTS!r}), embeddings.embed_query({TEXTS[0]!r})
"""

OPENROUTER = f"""
from openrouter import OpenRouter

client = OpenRouter(server_url="%s/api/v1", api_key="none")
generate = client.embeddings.generate
vectors = [entry.embedding for entry in generate(model={MINILM!r}, input=[[101, 7592, 102], [101, 2088, 102]]).data]
query = generate(model={MINILM!r}, input=[101, 7592, 102]).data[0].embedding
"""


@pytest.fixture(scope="module")
def decoding_api(service: Service, tiktoken_files: Path) -> Iterator[Api]:
    """Start a gateway that takes token ids for OpenAI's."""
    settings = {"GATEWAY_TOKEN_IDS": "cl100k_base", "TIKTOKEN_CACHE_DIR": str(tiktoken_files)}
    with run_gateway(service, **settings) as url:
        yield Api(url)


def embed_with_langchain(api: Api, install: Install, tiktoken_files: Path) -> Result:
    sources = [LANGCHAIN_AT_ITS_DEFAULTS % api.url]
    [result] = run_python(install("langchain"), sources, TIKTOKEN_CACHE_DIR=str(tiktoken_files))
    return result


@pending("LangChain, refused ids")
def test_langchain_at_its_defaults_is_told_what_to_set(api: Api, install: Install, tiktoken_files: Path) -> None:
    result = embed_with_langchain(api, install, tiktoken_files)
    assert result.get("error") == "BadRequestError", "wrong vectors, and no error"
    assert "check_embedding_ctx_length=False" in result["message"]


@pending("LangChain, decoded ids")
def test_langchain_at_its_defaults_is_right_if_the_server_decodes_its_ids(
    decoding_api: Api, install: Install, tiktoken_files: Path
) -> None:
    result = embed_with_langchain(decoding_api, install, tiktoken_files)
    assert_same_vectors(result["vectors"], decoding_api.embed(MINILM, TEXTS))
    assert_same_vectors([result["query"]], decoding_api.embed(MINILM, TEXTS[:1]))


def test_openrouter_sends_token_ids(api: Api, install: Install) -> None:
    [result] = run_python(install("openrouter"), [OPENROUTER % api.url])
    assert "error" not in result, result
    assert_same_vectors(result["vectors"], api.embed(MINILM, ["hello", "world"]))
    assert_same_vectors([result["query"]], api.embed(MINILM, ["hello"]))
