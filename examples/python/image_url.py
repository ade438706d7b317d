"""Embed an image by its URL, as on OpenRouter's page."""

import os

import requests

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "tiny/llama-nemotron-embed-vl")
IMAGE_URL = os.environ.get(
    "IMAGE_URL",
    "https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/Gfp-wisconsin-madison-the-nature-boardwalk.jpg/640px-Gfp-wisconsin-madison-the-nature-boardwalk.jpg",
)

response = requests.post(
    f"{URL}/api/v1/embeddings",
    headers={
        "Authorization": f"Bearer {API_KEY}",
        "Content-Type": "application/json",
    },
    json={
        "model": MODEL,
        "input": [{"content": [{"type": "image_url", "image_url": {"url": IMAGE_URL}}]}],
        "encoding_format": "float",
    },
)

data = response.json()
embedding = data["data"][0]["embedding"]
print(f"Embedding dimension: {len(embedding)}")
