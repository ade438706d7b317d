"""List the embedding models, as on OpenRouter's page."""

import os

import requests

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")

response = requests.get(
    f"{URL}/api/v1/embeddings/models",
    headers={
        "Authorization": f"Bearer {API_KEY}",
    },
)

models = response.json()
for model in models["data"]:
    print(f"{model['id']}: {model.get('context_length', 'N/A')} tokens")
