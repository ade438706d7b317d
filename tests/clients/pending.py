"""What clients ask for and the server does not offer yet.

A test of it is expected to fail, and fails if it passes: then its line goes.
"""

import pytest

PENDING = {
    "Cohere": "POST /v2/embed",
    "LiteLLM, cohere": "POST /v2/embed",
    "AIPerf chat-embeddings": "`messages` on POST /v1/embeddings",
    "Dify, images": "`messages` with an instruction and an empty response around the user's",
    "LangChain, refused ids": "token ids of another tokenizer are refused",
    "LangChain, decoded ids": "GATEWAY_TOKEN_IDS=cl100k_base",
}


def pending(name: str) -> pytest.MarkDecorator:
    """Return a mark under which a test is expected to fail if the server does not offer what it needs."""
    return pytest.mark.xfail(name in PENDING, strict=True, reason=f"not served yet: {PENDING.get(name)}")
