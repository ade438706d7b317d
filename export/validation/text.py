"""Text embedders against transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModel, LlamaConfig, LlamaModel
from transformers.utils import logging

from export.checkpoint import Checkpoint
from export.graphs.text_embedder import SentenceHead
from export.spec import ModelSpec, Pooling, Target
from export.tokenizer import load_tokenizer
from export.validation import Agreement, RunGraph, compare_embeddings, pack, run_graph

_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
}


def compare_with_transformers(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    tokenizer: bytes,
    head: SentenceHead,
    is_bidirectional: bool,
    embedder: Path,
    target: Target,
    texts: Sequence[str],
) -> Agreement:
    """Embed texts with the written graph, in one packed batch, and with transformers, one at a time."""
    expected = embed_with_transformers(checkpoint, _tokenize(spec, tokenizer, texts), head, is_bidirectional)
    return compare_embeddings(embed_with_graph(spec, tokenizer, embedder, target, texts), expected)


def embed_with_graph(
    spec: ModelSpec, tokenizer: bytes, embedder: Path, target: Target, texts: Sequence[str], run: RunGraph = run_graph
) -> NDArray[np.float32]:
    """Embed texts as passages, in one packed batch, `(texts, dimensions)`."""
    return run(embedder, target, "embeddings", pack(_tokenize(spec, tokenizer, texts)))


def _tokenize(spec: ModelSpec, tokenizer: bytes, texts: Sequence[str]) -> list[list[int]]:
    loaded = load_tokenizer(tokenizer)
    loaded.enable_truncation(spec.max_tokens)
    return [encoding.ids for encoding in loaded.encode_batch([spec.passage_prefix + text for text in texts])]


def embed_with_transformers(
    checkpoint: Checkpoint, input_ids: Sequence[Sequence[int]], head: SentenceHead, is_bidirectional: bool = False
) -> NDArray[np.float32]:
    """Embed sequences one at a time, without padding.

    Args:
        checkpoint: The files.
        input_ids: Token ids of each sequence.
        head: What makes one embedding of the hidden states of a sequence.
        is_bidirectional: Whether the model is a Llama in which every token attends to all others.

    Returns:
        Embeddings `(sequences, dimensions)`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns that heads are left out
    model = load_encoder(checkpoint.folder / checkpoint.transformer, is_bidirectional)
    dense = [_load_dense(checkpoint, layer.name) for layer in head.dense]
    embeddings = []
    with torch.inference_mode():
        for ids in input_ids:
            pooled = pool(encode(model, ids, is_bidirectional), head.pooling)
            for linear, layer in zip(dense, head.dense, strict=True):
                pooled = linear(pooled)
                if layer.activation:
                    pooled = _ACTIVATIONS[layer.activation](pooled)
            embeddings.append(nn.functional.normalize(pooled, dim=0) if head.normalize else pooled)
    stacked: NDArray[np.float32] = torch.stack(embeddings).numpy()
    return stacked


def load_encoder(folder: Path, is_bidirectional: bool) -> nn.Module:
    """Load a checkpoint by its own class, or as Llama, whose code a bidirectional checkpoint brings changed."""
    if is_bidirectional:
        config = LlamaConfig.from_pretrained(folder)
        llama: nn.Module = LlamaModel.from_pretrained(folder, config=config, use_safetensors=True, dtype=torch.float32)
        return llama.eval()
    model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32)
    if hasattr(model.config, "reference_compile"):
        model.config.reference_compile = False  # ModernBERT would compile itself
    loaded: nn.Module = model.eval()
    return loaded


def encode(model: nn.Module, ids: Sequence[int], is_bidirectional: bool) -> torch.Tensor:
    """Return the last hidden states of a sequence, `(tokens, width)`."""
    inputs = {"input_ids": torch.tensor([ids])}
    if is_bidirectional:  # without a mask, Llama would make a causal one
        inputs["attention_mask"] = torch.zeros(1, 1, len(ids), len(ids))
    hidden: torch.Tensor = model(**inputs).last_hidden_state[0]
    return hidden


def _load_dense(checkpoint: Checkpoint, name: str) -> nn.Linear:
    weight = torch.from_numpy(checkpoint.weights.read(f"{name}.weight"))
    has_bias = f"{name}.bias" in checkpoint.weights.names
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if has_bias:
            linear.bias.copy_(torch.from_numpy(checkpoint.weights.read(f"{name}.bias")))
    return linear


def pool(hidden: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Reduce the hidden states of a sequence, `(tokens, width)`, to one, `(width,)`."""
    match pooling:
        case "mean":
            return hidden.mean(dim=0)
        case "max":
            return hidden.amax(dim=0)
        case "cls":
            return hidden[0]
        case "last":
            return hidden[-1]
