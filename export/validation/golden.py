"""The golden input of a model and its embedding or score, with which a server checks that it still computes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.pairs import SAMPLE_QUERIES, encode_pair
from export.sample_texts import SAMPLE_TEXTS
from export.spec import ModelSpec, Precision, Target
from export.tokenizer import load_tokenizer
from export.validation import pack, run_graph
from export.validation.scores import score_with_graph

GOLDEN_TEXT = SAMPLE_TEXTS[0]
GOLDEN_QUERY = SAMPLE_QUERIES[1]

MIN_COSINES: Mapping[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
"""Lowest cosine between the golden embedding and that of a sound server, whose ONNX Runtime and hardware may differ."""

MAX_SCORE_ERRORS: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.2}
"""Largest difference of the golden score on such a server, as a part of the score if that is above 1."""


def compute_golden(spec: ModelSpec, tokenizer: bytes, head: Path, precision: Precision, target: Target) -> str:
    """Return the `golden` parameter of the ensemble of texts, as JSON (docs/contract.md).

    Args:
        spec: Numbers of the model.
        tokenizer: Content of the `tokenizer.json` to serve.
        head: File of the embedder or reranker.
        precision: Its precision.
        target: Device that the graph is for.
    """
    if spec.rank:
        return write_golden_score(score_golden_pair(spec, tokenizer, head, target), precision)
    return write_golden(embed_golden_text(spec, tokenizer, head, target), precision)


def embed_golden_text(spec: ModelSpec, tokenizer: bytes, embedder: Path, target: Target) -> NDArray[np.float32]:
    """Embed the golden text, as a passage and alone, with the written graph.

    Args:
        spec: Numbers of the model.
        tokenizer: Content of the `tokenizer.json` to serve.
        embedder: File of the graph.
        target: Device that the graph is for.

    Returns:
        The embedding `(dimensions,)`.
    """
    ids = load_tokenizer(tokenizer).encode(spec.passage_prefix + GOLDEN_TEXT).ids[: spec.max_tokens]
    inputs = pack([ids])
    if spec.image_embeds_dim is not None:  # a text brings one row, which is never read
        inputs |= {
            "image_embeds": np.full(spec.image_embeds_dim, np.nan, np.float32),
            "image_rows": np.ones(1, np.int32),
        }
    embedding: NDArray[np.float32] = run_graph(embedder, target, "embeddings", inputs)[0]
    return embedding


def score_golden_pair(spec: ModelSpec, tokenizer: bytes, reranker: Path, target: Target) -> float:
    """Score the golden pair, alone, with the written graph.

    Args:
        spec: Numbers of the reranker.
        tokenizer: Content of the `tokenizer.json` to serve.
        reranker: File of the graph.
        target: Device that the graph is for.
    """
    pair = encode_pair(load_tokenizer(tokenizer), spec, GOLDEN_QUERY, GOLDEN_TEXT)
    return float(score_with_graph(reranker, [pair], target, spec.image_embeds_dim)[0])


def write_golden_score(score: float, precision: Precision) -> str:
    """Return the `golden` parameter of the ensemble that scores texts, as JSON (docs/contract.md)."""
    max_abs_error = MAX_SCORE_ERRORS[precision] * max(1.0, abs(score))
    golden = {"query": GOLDEN_QUERY, "text": GOLDEN_TEXT, "score": score, "max_abs_error": max_abs_error}
    return json.dumps(golden, ensure_ascii=False)


def write_golden(embedding: NDArray[np.float32], precision: Precision) -> str:
    """Return the `golden` parameter of the text ensemble, as JSON (docs/contract.md)."""
    golden: dict[str, Any] = {
        "text": GOLDEN_TEXT,
        "embedding": base64.b64encode(embedding.astype("<f4").tobytes()).decode(),
        "min_cosine": MIN_COSINES[precision],
    }
    return json.dumps(golden, ensure_ascii=False)
