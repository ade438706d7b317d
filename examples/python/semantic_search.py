"""Rank documents by similarity to a query, as on OpenRouter's page."""

import os

import numpy as np
import requests

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "sentence-transformers/all-MiniLM-L6-v2")

# Sample documents
documents = [
    "The cat sat on the mat",
    "Dogs are loyal companions",
    "Python is a programming language",
    "Machine learning models require training data",
    "The weather is sunny today",
]


def cosine_similarity(a, b):
    """Calculate cosine similarity between two vectors"""
    dot_product = np.dot(a, b)
    magnitude_a = np.linalg.norm(a)
    magnitude_b = np.linalg.norm(b)
    return dot_product / (magnitude_a * magnitude_b)


def semantic_search(query, documents):
    """Perform semantic search using embeddings"""
    # Generate embeddings for query and all documents
    response = requests.post(
        f"{URL}/api/v1/embeddings",
        headers={
            "Authorization": f"Bearer {API_KEY}",
            "Content-Type": "application/json",
        },
        json={"model": MODEL, "input": [query] + documents},
    )

    data = response.json()
    query_embedding = np.array(data["data"][0]["embedding"])
    doc_embeddings = [np.array(item["embedding"]) for item in data["data"][1:]]

    # Calculate similarity scores
    results = []
    for i, doc in enumerate(documents):
        similarity = cosine_similarity(query_embedding, doc_embeddings[i])
        results.append({"document": doc, "similarity": similarity})

    # Sort by similarity (highest first)
    results.sort(key=lambda x: x["similarity"], reverse=True)

    return results


# Search for documents related to pets
results = semantic_search("pets and animals", documents)
print("Search results:")
for i, result in enumerate(results):
    print(f"{i + 1}. {result['document']} (similarity: {result['similarity']:.4f})")
