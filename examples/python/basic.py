"""Embed one text, as on OpenRouter's page."""

import os

import requests

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "sentence-transformers/all-MiniLM-L6-v2")

response = requests.post(
    f"{URL}/api/v1/embeddings",
    headers={
        "Authorization": f"Bearer {API_KEY}",
        "Content-Type": "application/json",
    },
    json={"model": MODEL, "input": "The quick brown fox jumps over the lazy dog"},
)

data = response.json()
embedding = data["data"][0]["embedding"]
print(f"Embedding dimension: {len(embedding)}")
