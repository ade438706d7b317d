"""Text embedders of every architecture with random weights, small enough to write in each test run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    PretrainedConfig,
    Qwen3Config,
    Qwen3Model,
)

from export.architectures import ARCHITECTURES
from tests.export.tiny_bert import character_tokenizer, write_json

WIDTH = 32
SIZES: dict[str, Any] = {
    "vocab_size": 192, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 600, "initializer_range": 0.3,
}  # fmt: skip
DENSE = ((64, "linear.Identity", False), (24, "activation.Tanh", True))
"""Outputs, activation, and whether there is a bias, of two dense modules."""


def write_llama_bidirec(folder: Path, **changes: Any) -> Path:
    """Write a Llama that attends in both directions: mean pooling, grouped heads."""
    _write_model(folder, LlamaModel, LlamaConfig(**SIZES | {"num_key_value_heads": 2} | changes))
    changed = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "pooling": "avg"}
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | changed)
    return write_modules(folder, "mean_tokens")


def write_qwen3(folder: Path, **changes: Any) -> Path:
    """Write a Qwen3: causal, its heads normalised, last token pooling, heads of another size than the rest."""
    config = Qwen3Config(**SIZES | {"num_key_value_heads": 2, "head_dim": 16} | changes)
    _write_model(folder, Qwen3Model, config)
    prompts = {"query": "Instruct: find\nQuery:", "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    return write_modules(folder, "lasttoken")


def write_gemma3(folder: Path, **changes: Any) -> Path:
    """Write a Gemma 3 that attends in both directions: local and global layers, dense modules."""
    own = {
        "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "pad_token_id": 0,
        "use_bidirectional_attention": True, "rope_local_base_freq": 100.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }  # fmt: skip
    _write_model(folder, Gemma3TextModel, Gemma3TextConfig(**SIZES | own | changes), center=0.0)
    return write_modules(folder, "mean_tokens", DENSE)


def write_modernbert(folder: Path, **changes: Any) -> Path:
    """Write a ModernBERT with local and global layers: pooling of the first token."""
    own = {"local_attention": 16, "local_rope_theta": 100.0}
    own |= {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    _write_model(folder, ModernBertModel, ModernBertConfig(**SIZES | own | changes))
    return write_modules(folder, "cls_token")


PADDED = [model_type for model_type, module in ARCHITECTURES.items() if module == "padded"]
"""Model types that optimum exports."""


def write_padded(folder: Path, model_type: str) -> Path:
    """Write an encoder of a type without a graph of ours: mean pooling, up to 64 tokens."""
    sizes = SIZES | {"max_position_embeddings": 64, "embedding_size": WIDTH}
    config = AutoConfig.for_model(model_type, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    character_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n\nRandom weights.\n")
    return write_modules(folder, "mean_tokens")


WRITERS = {
    "llama_bidirec": write_llama_bidirec,
    "qwen3": write_qwen3,
    "gemma3_text": write_gemma3,
    "modernbert": write_modernbert,
}


def _write_model(folder: Path, model_class: Any, config: PretrainedConfig, center: float = 1.0) -> None:
    torch.manual_seed(0)
    model = model_class(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, center, 0.2)
    model.save_pretrained(folder)
    character_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n\nRandom weights.\n")


def write_modules(folder: Path, pooling: str, dense: Sequence[tuple[int, str, bool]] = ()) -> Path:
    """Write the files of sentence-transformers: transformer, pooling, dense layers, normalisation."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    inputs = WIDTH
    for outputs, activation, has_bias in dense:
        path = f"{len(modules)}_Dense"
        modules.append(("Dense", path))
        write_json(
            folder / path / "config.json",
            {"in_features": inputs, "out_features": outputs, "activation_function": f"torch.nn.modules.{activation}"},
        )
        tensors = {"linear.weight": 0.3 * torch.randn(outputs, inputs)}
        tensors |= {"linear.bias": torch.randn(outputs)} if has_bias else {}
        save_file(tensors, folder / path / "model.safetensors")
        inputs = outputs
    modules.append(("Normalize", f"{len(modules)}_Normalize"))
    entries = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in modules]
    write_json(folder / "modules.json", entries)
    write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{pooling}": True})
    return folder
