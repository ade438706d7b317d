"""A BERT checkpoint with random weights, small enough to write in each test run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from export.graphs.bert import record_bert
from export.graphs.layers import Layers, Sequences
from export.graphs.text_embedder import SentenceHead, build_text_embedder
from export.graphs.weights import Weights
from export.spec import Pooling, Precision, Target

POOLING_MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
DIMENSIONS = 32
MAX_TOKENS = 48


def write_tiny_bert(folder: Path, seed: int = 0, max_shard_size: str = "10MB") -> Path:
    """Write weights, tokenizer and sentence-transformers files: mean pooling, normalised, 48 tokens."""
    tokenizer = character_tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=DIMENSIONS, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n\nRandom weights.\n")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    write_pooling(folder, "mean", normalize=True)
    return folder


def build_bert_embedder(
    config: Mapping[str, Any],
    weights: Weights,
    pooling: Pooling,
    normalize: bool = True,
    precision: Precision = "fp32",
    target: Target = "cpu",
) -> ir.Model:
    """Build the embedder of a BERT."""

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        return record_bert(layers, config, input_ids, lengths)

    head = SentenceHead(pooling, normalize=normalize)
    return build_text_embedder(weights, record, config["hidden_size"], head, precision, target)


def write_pooling(folder: Path, pooling: str, normalize: bool) -> None:
    modules = ["Transformer", "Pooling"] + (["Normalize"] if normalize else [])
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    entries = [{"type": f"sentence_transformers.models.{name}", "path": paths[name]} for name in modules]
    write_json(folder / "modules.json", entries)
    modes = {mode: name == pooling for name, mode in POOLING_MODES.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": DIMENSIONS, **modes})


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def character_tokenizer() -> Tokenizer:
    """Return word pieces of one letter each, with truncation and padding as in published tokenizers."""
    letters = [chr(code) for code in range(0x21, 0x7F)]
    pieces = SPECIAL_TOKENS + letters + [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer
