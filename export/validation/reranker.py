"""Text rerankers against transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from export.checkpoint import Checkpoint
from export.pairs import Pair
from export.spec import Target
from export.validation import ScoreAgreement
from export.validation.scores import compare_scores, score_with_graph


def compare_with_transformers(
    checkpoint: Checkpoint, pairs: Sequence[Pair], reranker: Path, target: Target
) -> ScoreAgreement:
    """Score pairs with the written graph, in one packed batch, and with transformers, one at a time."""
    return compare_scores(score_with_graph(reranker, pairs, target), score_with_transformers(checkpoint, pairs))


def score_with_transformers(checkpoint: Checkpoint, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Return the score of each pair, `(pairs,)`, computed one at a time and without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    if hasattr(model.config, "reference_compile"):
        model.config.reference_compile = False  # ModernBERT would compile itself
    model.eval()
    has_types = getattr(model.config, "type_vocab_size", 1) > 1 and model.config.model_type == "bert"
    scores = []
    with torch.inference_mode():
        for pair in pairs:
            inputs = {"input_ids": torch.tensor([pair.input_ids])}
            if has_types:
                inputs["token_type_ids"] = torch.tensor([pair.token_types])
            scores.append(model(**inputs).logits[0, 0])
    stacked: NDArray[np.float32] = torch.stack(scores).numpy()
    return stacked
