"""Embed several texts in one request, as on OpenRouter's page."""

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
    json={
        "model": MODEL,
        "input": [
            "Machine learning is a subset of artificial intelligence",
            "Deep learning uses neural networks with multiple layers",
            "Natural language processing enables computers to understand text",
        ],
    },
)

data = response.json()
for i, item in enumerate(data["data"]):
    print(f"Embedding {i}: {len(item['embedding'])} dimensions")
