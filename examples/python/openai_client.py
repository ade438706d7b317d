"""Use OpenAI's own client with another base URL."""

import os

from openai import OpenAI

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "sentence-transformers/all-MiniLM-L6-v2")

client = OpenAI(base_url=f"{URL}/v1", api_key=API_KEY)

response = client.embeddings.create(model=MODEL, input=["Dogs are loyal companions", "The weather is sunny today"])
for entry in response.data:
    print(f"Embedding {entry.index}: {len(entry.embedding)} dimensions")

# Pass fields that OpenAI's API does not have in `extra_body`.
query = client.embeddings.create(
    model=MODEL, input="pets and animals", dimensions=64, extra_body={"input_type": "query", "truncate": "END"}
)
print(f"Query: {len(query.data[0].embedding)} dimensions, {query.usage.prompt_tokens} tokens")
