"""The models that clients list."""

import pytest

from tests.clients.api import Api
from tests.clients.conftest import Install
from tests.clients.runs import run_python
from tests.end_to_end.samples import MINILM, TINY

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

# By the group of packages.
LISTS = {
    "openai": """
from openai import OpenAI

models = [model.id for model in OpenAI(base_url="%s/v1", api_key="none").models.list()]
""",
    "openrouter": """
from openrouter import OpenRouter

client = OpenRouter(server_url="%s/api/v1", api_key="none")
models = [model.id for model in client.embeddings.list_models().result.data]
""",
    "langchain": f"""
from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

models = [model.id for model in NVIDIAEmbeddings(base_url="%s/v1", model={MINILM!r}).available_models]
""",
    "llama_index": f"""
from llama_index.embeddings.nvidia import NVIDIAEmbedding

models = [model.id for model in NVIDIAEmbedding(base_url="%s/v1", model={MINILM!r}).available_models]
""",
}

RETRIEVE = f"""
from openai import OpenAI

models = [OpenAI(base_url="%s/v1", api_key="none").models.retrieve({MINILM!r}).id]
"""


@pytest.mark.parametrize("group", LISTS)
def test_a_client_lists_the_served_models(api: Api, install: Install, group: str) -> None:
    [result] = run_python(install(group), [LISTS[group] % api.url])
    assert result == {"models": [TINY, MINILM]}


def test_openai_retrieves_one_model(api: Api, install: Install) -> None:
    [result] = run_python(install("openai"), [RETRIEVE % api.url])
    assert result == {"models": [MINILM]}
