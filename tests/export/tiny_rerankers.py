"""Rerankers of every architecture with random weights, small enough to write in each test run."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PretrainedConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
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
from preprocess.splits import WORD_PATTERNS
from tests.export.golden_inputs import cut_patches
from tests.export.tiny_bert import character_tokenizer, write_json

MAX_TOKENS = 600
WORDS = next(pattern for pattern in WORD_PATTERNS if r"|\p{N}|" in pattern)  # Qwen's
SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 800, "initializer_range": 0.3, "num_labels": 1,
}  # fmt: skip


def write_bert(folder: Path, **changes: Any) -> Path:
    """Write a BERT cross-encoder, as ms-marco-MiniLM: token types, a pooler, no activation of the score."""
    config = BertConfig(**SIZES | changes, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    return _write_model(folder, BertForSequenceClassification, config, pair_tokenizer("[CLS] $A [SEP] $B:1 [SEP]:1"))


def write_xlm_roberta(folder: Path, **changes: Any) -> Path:
    """Write an XLM-RoBERTa cross-encoder, as bge-reranker-v2-m3: positions after padding, two separators."""
    own = {"pad_token_id": 0, "max_position_embeddings": 801, "type_vocab_size": 1}
    config = XLMRobertaConfig(**SIZES | own | changes)
    tokenizer = pair_tokenizer("[CLS] $A [SEP] [SEP] $B [SEP]")
    return _write_model(folder, XLMRobertaForSequenceClassification, config, tokenizer)


def write_modernbert(folder: Path, **changes: Any) -> Path:
    """Write a ModernBERT cross-encoder, as gte-reranker-modernbert: a dense layer with a normalisation."""
    own = {"local_attention": 16, "local_rope_theta": 100.0, "classifier_pooling": "mean", "pad_token_id": 0}
    own |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    tokenizer = pair_tokenizer("[CLS] $A [SEP] $B [SEP]")
    return _write_model(
        folder, ModernBertForSequenceClassification, ModernBertConfig(**SIZES | own | changes), tokenizer
    )


def write_llama(folder: Path, **changes: Any) -> Path:
    """Write a Llama that attends in both directions, as llama-nemotron-rerank: mean pooling, a temperature."""
    config = LlamaConfig(**SIZES | {"num_key_value_heads": 2})
    _write_model(folder, LlamaForSequenceClassification, config, byte_tokenizer())
    changed: dict[str, Any] = {
        "model_type": "llama_bidirec",
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
    }
    changed |= {"pooling": "avg", "temperature": 0.5}
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | changed | changes)
    return folder


def write_qwen3(folder: Path, **changes: Any) -> Path:
    """Write a Qwen3, which answers with yes or no; its export needs `--task rank`."""
    config = Qwen3Config(**SIZES | {"num_key_value_heads": 2, "head_dim": 16} | changes)
    return _write_model(folder, Qwen3ForCausalLM, config, byte_tokenizer())


RERANKERS: Mapping[str, Callable[..., Path]] = {
    "bert": write_bert,
    "xlm-roberta": write_xlm_roberta,
    "modernbert": write_modernbert,
    "llama": write_llama,
    "qwen3": write_qwen3,
}
QWEN3_PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
PROMPTS = {"llama": "question:{query} \n \n passage:{document}", "qwen3": QWEN3_PROMPT}
"""The text of a pair for rerankers that read one; the others join two texts by their tokenizer."""


def score_by_reference(folder: Path, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the score of a query with each text by transformers, from the text of the pair to the logit."""
    checkpoint = Checkpoint(folder)
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model_type = checkpoint.config["model_type"]
    if model_type in ("qwen3", "llama_bidirec"):
        prompt = PROMPTS[model_type.removesuffix("_bidirec")]
        encodings = [tokenizer.encode(prompt.format(query=query, document=text)) for text in texts]
    else:
        tokenizer.encode_special_tokens = True
        encodings = [tokenizer.encode(query, text) for text in texts]
    answers = (tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")) if model_type == "qwen3" else None
    pairs = [Pair(each.ids, each.type_ids) for each in encodings]
    return score_with_transformers(checkpoint, pairs, model_type == "llama_bidirec", answers)


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


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of bytes that splits words as Qwen's does, with the tokens of its chat."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, "ye", "yes", "no", "ss", ":p", "on"]
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("s", "s"), (":", "p"), ("o", "n")]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_of_words])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
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
