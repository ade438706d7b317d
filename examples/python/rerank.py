"""Order documents by their relevance to a query."""

import os

import requests

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "cross-encoder/ms-marco-MiniLM-L6-v2")

documents = ["Cats sleep all day", "Dogs are loyal companions", "Fish swim"]

response = requests.post(
    f"{URL}/v2/rerank",
    headers={"Authorization": f"Bearer {API_KEY}"},
    json={"model": MODEL, "query": "Which animal is loyal?", "documents": documents},
    timeout=60,
)
response.raise_for_status()
for rank, result in enumerate(response.json()["results"], start=1):
    print(f"{rank}. {documents[result['index']]} (relevance: {result['relevance_score']:.4f})")
