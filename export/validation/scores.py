"""Scores of pairs by a written graph, and their distance from those of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.pairs import Pair
from export.spec import Target
from export.validation import ScoreAgreement, open_graph, pack, require_comparable


def score_with_graph(
    path: Path, pairs: Sequence[Pair], target: Target, image_embeds_dim: int | None = None
) -> NDArray[np.float32]:
    """Score pairs of texts with a written graph.

    Args:
        path: File of the reranker.
        pairs: Pairs without images.
        target: Device that the graph is for.
        image_embeds_dim: Width of an image token; None for a model without images.

    Returns:
        The score of each pair, `(pairs,)`, computed in one packed batch.
    """
    session = open_graph(path, target)
    inputs = pack([pair.input_ids for pair in pairs])
    inputs["token_types"] = np.concatenate([np.asarray(pair.token_types, np.int64) for pair in pairs])
    accepted = {tensor.name for tensor in session.get_inputs()}
    if image_embeds_dim is not None:  # a text brings one row, which is never read
        inputs["image_embeds"] = np.full(len(pairs) * image_embeds_dim, np.nan, np.float32)
        inputs["image_rows"] = np.ones(len(pairs), np.int32)
    scores: NDArray[np.float32] = session.run(
        ["scores"], {name: rows for name, rows in inputs.items() if name in accepted}
    )[0]
    return scores


def compare_scores(found: NDArray[np.float32], expected: NDArray[np.float32]) -> ScoreAgreement:
    """Compare scores `(pairs,)`.

    Raises:
        ValidationError: The shapes differ, or a score is not finite.
    """
    require_comparable(found, expected, "scores")
    return ScoreAgreement(
        max_abs_error=float(np.abs(found - expected).max()),
        max_abs_score=float(np.abs(expected).max()),
        correlation=float(np.corrcoef(found, expected)[0, 1]),
        samples=len(found),
    )
