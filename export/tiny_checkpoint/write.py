"""The files of a checkpoint: configs, tokenizer, weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from export.sample_texts import SAMPLE_TEXTS
from export.tiny_checkpoint.tensors import NamedShape, Widths, draw_tensor, reranker_shapes, tensor_shapes

MAX_SHARD_BYTES = 512 << 20  # a larger tensor gets its own shard
MAX_TOKENIZER_SIZE = 1024
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

README = """---
license: apache-2.0
---
# A stand-in with random weights

Random weights in the layout of nvidia/{model}, for trying the path: {results} mean nothing.

Written by `python -m export.tiny_checkpoint` from seed {seed}.
"""

RERANKER_CONFIG = {
    "architectures": ["LlamaNemotronVLForSequenceClassification"],
    "model_type": "llama_nemotron_vl_rerank",
    "prompt_template": "v1",
    "temperature": 1.0,
    "num_labels": 1,
}
"""What differs from the config of an embedder."""

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
IMAGE = "<IMG_CONTEXT>"

# Llama 3's split: words with the space before them, up to three digits, punctuation, line ends.
_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def write_checkpoint(
    folder: Path, widths: Widths, *, seed: int = 0, dtype: str = "float32", reranker: bool = False
) -> None:
    """Write a checkpoint, holding one shard in memory at a time.

    Args:
        folder: Folder to write to, created if necessary.
        widths: Widths of the model.
        seed: Seed of the weights; the same seed and widths give the same files.
        dtype: Stored type of the weights, `float32` or `bfloat16`.
        reranker: Whether to write a reranker in place of an embedder.

    Raises:
        ValueError: The vocabulary is too small for the tokenizer, or the seed is negative.
    """
    if seed < 0:
        raise ValueError("seed must be at least 0")
    tokenizer = _train_tokenizer(min(widths.vocab_size, MAX_TOKENIZER_SIZE))
    if tokenizer.get_vocab_size() > widths.vocab_size:
        raise ValueError(f"the tokenizer alone has {tokenizer.get_vocab_size()} tokens: the vocabulary is too small")
    folder.mkdir(parents=True, exist_ok=True)
    model, results = ("rerank", "the scores") if reranker else ("embed", "the embeddings")
    readme = README.format(seed=seed, model=f"llama-nemotron-{model}-vl-1b-v2", results=results)
    (folder / "README.md").write_text(readme, "utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})
    config = _model_config(widths, tokenizer.token_to_id(IMAGE), dtype)
    _write_json(folder / "config.json", config | (RERANKER_CONFIG if reranker else {}))
    _write_json(folder / "processor_config.json", _processor_config())
    shapes = reranker_shapes(widths) if reranker else tensor_shapes(widths)
    _write_weights(folder, list(shapes), seed, DTYPES[dtype])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def _write_weights(folder: Path, tensors: list[NamedShape], seed: int, dtype: np.dtype[Any]) -> None:
    """Write one file, or shards and their index, named as transformers names them."""
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


def _cut_shards(tensors: Iterable[NamedShape], itemsize: int) -> Iterator[list[NamedShape]]:
    shard: list[NamedShape] = []
    total = 0
    for name, shape in tensors:
        size = int(np.prod(shape)) * itemsize
        if shard and total + size > MAX_SHARD_BYTES:
            yield shard
            shard, total = [], 0
        shard.append((name, shape))
        total += size
    yield shard


def _write_shard(path: Path, tensors: list[NamedShape], seed: int, dtype: np.dtype[Any]) -> None:
    content: dict[str, NDArray[Any]] = {
        name: draw_tensor(name, shape, seed).astype(dtype, copy=False) for name, shape in tensors
    }
    save_file(content, path, metadata={"format": "pt"})


def _train_tokenizer(vocab_size: int) -> Tokenizer:
    """Train byte-level BPE on the sample texts, with a BOS before every text and an image token.

    Args:
        vocab_size: Maximum number of tokens, bytes and the four special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [BOS, EOS, PAD, IMAGE]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["query: passage: <img> </img>", *SAMPLE_TEXTS], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def _model_config(widths: Widths, image_token_id: int, dtype: str) -> dict[str, Any]:
    """Return the content of `config.json`, with rope parameters in the older of their two forms."""
    return {
        "architectures": ["LlamaNemotronVLModel"],
        "model_type": "llama_nemotron_vl",
        "dtype": dtype,
        "img_context_token_id": image_token_id,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 512,
        "max_input_tiles": 6,
        "use_thumbnail": True,
        "select_layer": -1,
        "pooling": "avg",
        "q_max_length": 512,
        "p_max_length": 10240,
        "query_prefix": "query:",
        "passage_prefix": "passage:",
        "vocab_size": widths.vocab_size,
        "llm_config": {
            "model_type": "llama_bidirec",
            "hidden_act": "silu",
            "hidden_size": widths.hidden_size,
            "intermediate_size": widths.intermediate_size,
            "num_hidden_layers": widths.layers,
            "num_attention_heads": widths.heads,
            "num_key_value_heads": widths.kv_heads,
            "head_dim": widths.head_size,
            "max_position_embeddings": 131072,
            "attention_bias": False,
            "mlp_bias": False,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "vocab_size": widths.vocab_size,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": widths.vision_hidden_size,
            "intermediate_size": widths.vision_intermediate_size,
            "num_hidden_layers": widths.vision_layers,
            "num_attention_heads": widths.vision_heads,
            "num_channels": 3,
            "image_size": 512,
            "patch_size": 16,
            "layer_norm_eps": 1e-06,
        },
    }


def _processor_config() -> dict[str, Any]:
    """Return the content of `processor_config.json`."""
    return {
        "dynamic_image_size": True,
        "image_size": 512,
        "max_input_tiles": 6,
        "num_image_token": 256,
        "use_thumbnail": True,
        "q_max_length": 512,
        "p_max_length": 10240,
        "query_prefix": "query:",
        "passage_prefix": "passage:",
    }
