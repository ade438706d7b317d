"""Text encoders of the BERT family against transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from transformers import AutoModel
from transformers.utils import logging

from export.sample_texts import SAMPLE_TEXTS
from export.spec import ModelSpec, Pooling, Target
from export.tokenizer import load_tokenizer
from export.validation import Agreement, compare_embeddings, open_graph


def compare_with_transformers(
    folder: Path, spec: ModelSpec, tokenizer: bytes, embedder: Path, target: Target
) -> Agreement:
    """Embed the sample texts with the written graph, in one packed batch, and with transformers, one at a time."""
    loaded = load_tokenizer(tokenizer)
    loaded.enable_truncation(spec.max_tokens)
    ids = [encoding.ids for encoding in loaded.encode_batch([spec.passage_prefix + text for text in SAMPLE_TEXTS])]
    expected = embed_with_transformers(folder, ids, spec.pooling, spec.normalize)
    return compare_embeddings(_embed_with_graph(open_graph(embedder, target), ids), expected)


def _embed_with_graph(embedder: InferenceSession, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    inputs = {
        "input_ids": np.concatenate([np.asarray(sequence, np.int64) for sequence in ids]),
        "sequence_lengths": np.asarray([len(sequence) for sequence in ids], np.int32),
    }
    embeddings: NDArray[np.float32] = embedder.run(["embeddings"], inputs)[0]
    return embeddings


def embed_with_transformers(
    folder: Path, input_ids: Sequence[Sequence[int]], pooling: Pooling, normalize: bool
) -> NDArray[np.float32]:
    """Embed sequences one at a time, without padding.

    Args:
        folder: Folder of the checkpoint.
        input_ids: Token ids of each sequence.
        pooling: How the last hidden states of a sequence become one vector.
        normalize: Whether embeddings have length 1.

    Returns:
        Embeddings `(sequences, dimensions)`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns that the pooling layer is left out
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
