"""What clients ask for and the server does not offer yet.

A test of it is expected to fail, and fails if it passes: then its line goes.
"""

import pytest

PENDING = {
    "Cohere": "POST /v2/embed",
    "LiteLLM, cohere": "POST /v2/embed",
    "AIPerf chat-embeddings": "`messages` on POST /v1/embeddings",
    "Dify images": "`messages` on POST /v1/embeddings",
    "OpenAI models.retrieve": "GET /v1/models/{id}",
    "OpenRouter token ids": "token ids written as floats",
    "LangChain defaults refused": "token ids of another tokenizer are refused",
    "LangChain defaults decoded": "GATEWAY_TOKEN_IDS=cl100k_base",
}


def pending(name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a test: none once the server offers what it needs."""
    return [pytest.mark.xfail(strict=True, reason=f"not served yet: {PENDING[name]}")] if name in PENDING else []
