"""The scores of text rerankers by transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging

from export.checkpoint import Checkpoint
from export.graphs.nemotron_vl import POOLINGS
from export.pairs import Pair
from export.spec import Pooling
from export.validation.text import encode, load_encoder, pool

Scorer = Callable[[Pair], torch.Tensor]


def score_with_transformers(
    checkpoint: Checkpoint,
    pairs: Sequence[Pair],
    is_bidirectional: bool = False,
    answers: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Score pairs one at a time, without padding.

    Args:
        checkpoint: The files.
        pairs: Token ids and types of each pair.
        is_bidirectional: Whether the model is a Llama in which every token attends to all others.
        answers: Ids of the tokens of a text generator whose logits are subtracted; None for a classifier.

    Returns:
        Scores `(pairs,)`, logits.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns that heads are left out
    if is_bidirectional:
        score = _load_llama(checkpoint)
    elif answers:
        score = _load_generator(checkpoint, *answers)
    else:
        score = _load_classifier(checkpoint)
    with torch.inference_mode():
        scores: NDArray[np.float32] = torch.stack([score(pair) for pair in pairs]).numpy()
    return scores


def _load_classifier(checkpoint: Checkpoint) -> Scorer:
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    if hasattr(model.config, "reference_compile"):
        model.config.reference_compile = False  # ModernBERT would compile itself
    model.eval()
    has_types = model.config.model_type == "bert" and model.config.type_vocab_size > 1

    def score(pair: Pair) -> torch.Tensor:
        inputs = {"input_ids": torch.tensor([pair.input_ids])}
        if has_types:
            inputs["token_type_ids"] = torch.tensor([pair.token_types])
        logit: torch.Tensor = model(**inputs).logits[0, 0]
        return logit

    return score


def _load_generator(checkpoint: Checkpoint, yes: int, no: int) -> Scorer:
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    model.eval()  # type: ignore[no-untyped-call]

    def score(pair: Pair) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([pair.input_ids])).logits[0, -1]
        difference: torch.Tensor = logits[yes] - logits[no]
        return difference

    return score


def _load_llama(checkpoint: Checkpoint) -> Scorer:
    model = load_encoder(checkpoint.folder, is_bidirectional=True)
    config, weight = checkpoint.config, torch.from_numpy(checkpoint.weights.read("score.weight")[0])
    pooling: Pooling = "last" if config["pooling"] == "last" else POOLINGS[config["pooling"]]

    def score(pair: Pair) -> torch.Tensor:
        pooled = pool(encode(model, pair.input_ids, is_bidirectional=True), pooling)
        scaled: torch.Tensor = pooled @ weight / config.get("temperature", 1.0)
        return scaled

    return score
