"""Text encoders of the BERT family by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel
from transformers.utils import logging

from export.spec import Pooling


def embed_with_transformers(
    folder: Path, input_ids: Sequence[Sequence[int]], pooling: Pooling, normalize: bool
) -> NDArray[np.float32]:
    """Embeds sequences one after the other, without padding.

    Args:
        folder: The checkpoint.
        input_ids: Token ids of each sequence.
        pooling: How its last hidden states become one vector.
        normalize: Whether embeddings have length 1.

    Returns:
        `(sequences, dims)`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns of the pooling layer, which is left out on purpose
    model = AutoModel.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    with torch.inference_mode():
        embeddings = [_embed(model, torch.tensor([ids]), pooling, normalize) for ids in input_ids]
    stacked: NDArray[np.float32] = torch.stack(embeddings).numpy()
    return stacked


def _embed(model: torch.nn.Module, input_ids: torch.Tensor, pooling: Pooling, normalize: bool) -> torch.Tensor:
    hidden = model(input_ids=input_ids).last_hidden_state[0]
    match pooling:
        case "mean":
            pooled = hidden.mean(dim=0)
        case "max":
            pooled = hidden.amax(dim=0)
        case "cls":
            pooled = hidden[0]
    return torch.nn.functional.normalize(pooled, dim=0) if normalize else pooled
