"""Texts whose embeddings or scores an export has recorded, to see whether a model still computes them."""

import base64
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Golden:
    """A text whose embedding is known, to check that a model still embeds correctly.

    Attributes:
        text: Embedded as a passage.
        embedding: `(dimensions,)` little-endian float32, as bytes.
        min_cosine: Lowest cosine similarity between it and what a sound engine returns.
    """

    text: str
    embedding: bytes
    min_cosine: float

    def matches(self, vector: npt.NDArray[np.float32]) -> bool:
        """Return whether a vector `(dimensions,)` is the golden text's, within the tolerance."""
        expected = np.frombuffer(self.embedding, "<f4").astype(np.float64)
        found = vector.astype(np.float64)
        lengths = float(np.linalg.norm(expected) * np.linalg.norm(found))
        return float(expected @ found) >= self.min_cosine * lengths > 0


@dataclass(frozen=True, slots=True)
class GoldenScore:
    """A text whose score is known, to check that a model still ranks correctly.

    Attributes:
        query: What the text is ranked by.
        text: What is ranked.
        score: As the graph returned it.
        max_abs_error: Largest difference between it and what a sound engine returns.
    """

    query: str
    text: str
    score: float
    max_abs_error: float

    def matches(self, scores: npt.NDArray[np.float32]) -> bool:
        """Return whether a score, which has the shape `(1,)`, is the golden text's, within the tolerance."""
        return abs(float(scores[0]) - self.score) <= self.max_abs_error


def read_golden(parameter: str | None, dimensions: int) -> Golden | None:
    """Read the `golden` parameter of a text ensemble.

    Raises:
        KeyError: A field is missing.
        ValueError: It is not JSON of this shape, or the embedding has another size.
    """
    if parameter is None:
        return None
    fields = json.loads(parameter)
    embedding = base64.b64decode(fields["embedding"], validate=True)
    if len(embedding) != 4 * dimensions:
        raise ValueError("the golden embedding has another size than the model's")
    return Golden(str(fields["text"]), embedding, float(fields["min_cosine"]))


def read_golden_score(parameter: str | None) -> GoldenScore | None:
    """Read the `golden` parameter of a text ensemble that ranks.

    Raises:
        KeyError: A field is missing.
        ValueError: It is not JSON of this shape.
    """
    if parameter is None:
        return None
    fields = json.loads(parameter)
    return GoldenScore(
        str(fields["query"]), str(fields["text"]), float(fields["score"]), float(fields["max_abs_error"])
    )
