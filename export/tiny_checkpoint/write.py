"""Writes the files of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from export.tiny_checkpoint.configs import model_config, processor_config
from export.tiny_checkpoint.tensors import Named, draw_tensor, tensor_shapes
from export.tiny_checkpoint.tokenizer import BOS, EOS, IMAGE, PAD, train_tokenizer
from export.tiny_checkpoint.widths import Widths

MAX_SHARD_BYTES = 512 << 20  # one larger tensor has a shard of its own
MAX_TOKENIZER_SIZE = 1024
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

README = """---
license: apache-2.0
---
# A stand-in with random weights

Random weights in the layout of nvidia/llama-nemotron-embed-vl-1b-v2, for trying the path: the embeddings mean nothing.

Written by `python -m export.tiny_checkpoint` from seed {seed}.
"""


def write_checkpoint(folder: Path, widths: Widths, *, seed: int = 0, dtype: str = "float32") -> None:
    """Writes a checkpoint, holding one shard in memory at a time.

    Args:
        folder: Where to; made if absent.
        widths: Its numbers.
        seed: The same seed and widths give the same files.
        dtype: How weights are stored, `float32` or `bfloat16`.

    Raises:
        ValueError: If the vocabulary is too small for the tokenizer.
    """
    tokenizer = train_tokenizer(min(widths.vocab_size, MAX_TOKENIZER_SIZE))
    if tokenizer.get_vocab_size() > widths.vocab_size:
        raise ValueError(f"the tokenizer alone has {tokenizer.get_vocab_size()} tokens: the vocabulary is too small")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(README.format(seed=seed), "utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})
    _write_json(folder / "config.json", model_config(widths, tokenizer.token_to_id(IMAGE), dtype))
    _write_json(folder / "processor_config.json", processor_config())
    _write_weights(folder, list(tensor_shapes(widths)), seed, DTYPES[dtype])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def _write_weights(folder: Path, tensors: list[Named], seed: int, dtype: np.dtype[Any]) -> None:
    """One file, or shards and their index, named as transformers does."""
    shards = list(_cut_shards(tensors, dtype.itemsize))
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0], seed, dtype)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shard, seed, dtype)
        weight_map |= {tensor: name for tensor, _ in shard}
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _cut_shards(tensors: Iterable[Named], itemsize: int) -> Iterator[list[Named]]:
    shard: list[Named] = []
    total = 0
    for name, shape in tensors:
        size = int(np.prod(shape)) * itemsize
        if shard and total + size > MAX_SHARD_BYTES:
            yield shard
            shard, total = [], 0
        shard.append((name, shape))
        total += size
    yield shard


def _write_shard(path: Path, tensors: list[Named], seed: int, dtype: np.dtype[Any]) -> None:
    content: dict[str, NDArray[Any]] = {
        name: draw_tensor(name, shape, seed).astype(dtype, copy=False) for name, shape in tensors
    }
    save_file(content, path, metadata={"format": "pt"})
