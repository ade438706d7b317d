"""Rerankers of every architecture with random weights, small enough to write in each test run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from export.checkpoint import Checkpoint
from export.graphs.weights import UnprefixedWeights
from export.pairs import Pair
from export.tokenizer import load_tokenizer
from export.validation.nemotron_vl import SampleItem
from export.validation.nemotron_vl import score_with_transformers as score_items
from export.validation.reranker import score_with_transformers
from tests.export.golden_inputs import cut_patches
from tests.export.tiny_bert import character_tokenizer, write_json

MAX_TOKENS = 300
SIZES: dict[str, Any] = {
    "vocab_size": 192, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 600, "initializer_range": 0.3, "num_labels": 1,
}  # fmt: skip


def write_bert(folder: Path, **changes: Any) -> Path:
    """Write a BERT cross-encoder, as ms-marco-MiniLM: token types, a pooler, no activation of the score."""
    config = BertConfig(**SIZES | changes, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    return _write_model(folder, BertForSequenceClassification, config, pair_tokenizer("[CLS] $A [SEP] $B:1 [SEP]:1"))


def write_xlm_roberta(folder: Path, **changes: Any) -> Path:
    """Write an XLM-RoBERTa cross-encoder, as bge-reranker-v2-m3: positions after padding, two separators."""
    own = {"pad_token_id": 0, "max_position_embeddings": 601, "type_vocab_size": 1}
    config = XLMRobertaConfig(**SIZES | own | changes)
    tokenizer = pair_tokenizer("[CLS] $A [SEP] [SEP] $B [SEP]")
    return _write_model(folder, XLMRobertaForSequenceClassification, config, tokenizer)


RERANKERS: Mapping[str, Callable[..., Path]] = {"bert": write_bert, "xlm-roberta": write_xlm_roberta}


def score_by_reference(folder: Path, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the score of a query with each text by transformers, from the text of the pair to the logit."""
    checkpoint = Checkpoint(folder)
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    encodings = [tokenizer.encode(query, text) for text in texts]
    return score_with_transformers(checkpoint, [Pair(each.ids, each.type_ids) for each in encodings])


def score_with_images(
    folder: Path, query: str, images: Sequence[Path | None], texts: Sequence[str]
) -> NDArray[np.float32]:
    """Return the score of a query with each document of a multimodal reranker, prompted as by the model's processor."""
    checkpoint = Checkpoint(folder)
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    items = []
    for image, text in zip(images, texts, strict=True):
        rows = None if image is None else cut_patches(image)
        shown = "" if rows is None else f"<img>{'<IMG_CONTEXT>' * len(rows)}</img> "
        items.append(SampleItem(tokenizer.encode(f"{shown}question:{query} \n \n passage:{text}").ids, rows))
    return score_items(checkpoint.config, UnprefixedWeights(checkpoint.weights, "model."), items)


def pair_tokenizer(pair: str) -> Tokenizer:
    """Return a tokenizer of letters that joins two texts by a template."""
    tokenizer = character_tokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, special)
    return tokenizer


def _write_model(folder: Path, model_class: Any, config: PretrainedConfig, tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    model = model_class(config)
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() or name.endswith("bias"):
            torch.nn.init.normal_(parameter, float("norm" in name.lower() and name.endswith("weight")), 0.2)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": MAX_TOKENS})
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n\nRandom weights.\n")
    return folder
