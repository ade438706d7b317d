"""The requests of Open WebUI and Dify, built from the settings on the page as their source code does.

They are too large to run here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.clients.page import find_client

# The versions whose source these requests were taken from.
OPEN_WEBUI = ("Open WebUI", "0.12.4")  # open_webui/retrieval/utils.py: agenerate_openai_batch_embeddings
DIFY = ("OpenAI-API-compatible", "0.0.63")  # models/text_embedding/text_embedding.py of the plugin

Vector = list[float]


def read_settings(client: str, separator: str, url: str, **changes: str) -> dict[str, str]:
    """Return the settings of a client's section, for a server at another URL."""
    source = find_client(client).find_block().source.replace("http://127.0.0.1:8000", url)
    settings = dict(line.split(separator, 1) for line in source.splitlines())
    return {name: value.strip() for name, value in settings.items()} | changes


def embed_with_open_webui(settings: dict[str, str], texts: Sequence[str], kind: str) -> list[Vector]:
    """Embed texts as Open WebUI does for documents (`CONTENT`) and searches (`QUERY`)."""
    assert settings["RAG_EMBEDDING_ENGINE"] == "openai"
    prefix, field = settings[f"RAG_EMBEDDING_{kind}_PREFIX"], settings["RAG_EMBEDDING_PREFIX_FIELD_NAME"]
    vectors = []
    for batch in cut(texts, int(settings["RAG_EMBEDDING_BATCH_SIZE"])):
        response = httpx.post(
            f"{settings['RAG_OPENAI_API_BASE_URL']}/embeddings",
            headers={"Authorization": f"Bearer {settings['RAG_OPENAI_API_KEY']}"},
            json={"input": batch, "model": settings["RAG_EMBEDDING_MODEL"], field: prefix},
        )
        response.raise_for_status()
        vectors += [entry["embedding"] for entry in response.json()["data"]]
    return vectors


def embed_with_dify(settings: dict[str, str], texts: Sequence[str]) -> tuple[list[Vector], int]:
    """Embed texts as Dify's plugin does, and return the vectors and the tokens that it counts."""
    vectors, tokens = [], 0
    for batch in cut(texts, int(settings["Model max chunks per batch"])):
        response = post_as_dify(settings, {"model": settings["Model Name"], "input": batch})
        vectors += [entry["embedding"] for entry in response["data"]]
        tokens += response["usage"]["prompt_tokens"]
    return vectors, tokens


def embed_image_with_dify(settings: dict[str, str], image_url: str, text: str) -> Vector:
    """Embed an image with a text as Dify's plugin does: as messages around the user's, in the manner of vLLM."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": text}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
    ]
    fields = {"encoding_format": "float", "continue_final_message": True, "add_special_tokens": True}
    response = post_as_dify(settings, {"messages": messages, "model": settings["Model Name"]} | fields)
    return list(response["data"][0]["embedding"])


def post_as_dify(settings: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(
        f"{settings['API Base URL'].rstrip('/')}/embeddings",
        headers={"Authorization": f"Bearer {settings['API Key']}"},
        json=body,
    )
    response.raise_for_status()
    return dict(response.json())


def cut(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    return (list(texts[start : start + size]) for start in range(0, len(texts), size))
