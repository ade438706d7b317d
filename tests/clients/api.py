"""The plain HTTP API, which the vectors of every client are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

MIN_COSINE = 1 - 1e-6


@dataclass(frozen=True)
class Api:
    """The server at a base URL."""

    url: str

    def embed(self, model: str, inputs: Sequence[Any], **fields: str) -> npt.NDArray[np.float64]:
        """Return the vectors of the inputs, as an array with one row for each."""
        body = {"model": model, "input": list(inputs)} | fields
        response = httpx.post(f"{self.url}/v1/embeddings", json=body, timeout=60)
        assert response.status_code == 200, response.text
        return np.array([entry["embedding"] for entry in response.json()["data"]], np.float64)


def assert_same_vectors(actual: Sequence[Sequence[float]], expected: npt.NDArray[np.float64]) -> None:
    """Check that there are as many vectors as expected, each with a cosine of almost 1 to its counterpart."""
    vectors = np.array(actual, np.float64)
    assert vectors.shape == expected.shape
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((vectors * expected).sum(axis=1) / norms).min() >= MIN_COSINE
