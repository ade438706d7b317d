"""sentence-transformers behind FastAPI, as one would write it in an afternoon. Runs in the peer's environment."""

# ruff: noqa: D103 - the peer's environment does not contain this project
import os
from typing import Any

from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(os.environ["MODEL_FOLDER"], device="cpu")


@app.post("/v1/embeddings")
def embed(request: dict[str, Any]) -> dict[str, Any]:
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    data = [{"object": "embedding", "index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": request["model"]}
