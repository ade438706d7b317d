"""Text embedders and rerankers made of decoders: Llama with bidirectional attention, Qwen3, Gemma 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from tokenizers import Tokenizer

from export.architectures import Plan
from export.architectures.config import require_decoder, require_number, require_sizes
from export.architectures.reranker import PASSAGE, QUESTION, PairEncoder, plan_text_reranker
from export.architectures.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.architectures.text import TextEncoder, count_rows, plan_text_embedder
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.blocks import CAUSAL, EVERYTHING, Reach
from export.graphs.decoder import GEMMA3, LLAMA, QWEN3, Decoder, DecoderStyle, LayerKind, read_heads
from export.graphs.layers import Layers, Sequences
from export.graphs.nemotron_vl import POOLINGS
from export.graphs.text_embedder import DenseLayer, RecordEncoder, SentenceHead, build_text_embedder
from export.graphs.weights import Array, DerivedWeights, Weights, find_prefix
from export.spec import Pooling, Precision, RankSpec, Target
from export.tokenizer import load_tokenizer, prepare_tokenizer, read_special_tokens

_STYLES: Mapping[str, DecoderStyle] = {"llama_bidirec": LLAMA, "qwen3": QWEN3, "gemma3_text": GEMMA3}
_POOLINGS: Mapping[str, Pooling] = POOLINGS | {"last": "last"}

# The prompt of Qwen3 rerankers (source: their model cards).
QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QWEN3_HEAD = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
    ' Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN3_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

_FULL, _SLIDING = "full_attention", "sliding_attention"


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    config = checkpoint.config
    record, table = _read_encoder(checkpoint)
    encoder = TextEncoder(
        partial(build_text_embedder, checkpoint.weights, record, config["hidden_size"]),
        config["hidden_size"],
        vocab_size=count_rows(checkpoint, table, "token embeddings"),
        max_tokens=config["max_position_embeddings"],
        is_bidirectional=config["model_type"] == "llama_bidirec",
    )
    return plan_text_embedder(checkpoint, precision, target, encoder, _read_sentence(checkpoint))


def plan_reranker(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text reranker.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
    is_llama = checkpoint.config["model_type"] == "llama_bidirec"
    encoder = (_read_llama_reranker if is_llama else _read_qwen3_reranker)(checkpoint)
    return plan_text_reranker(checkpoint, precision, target, encoder)


def _read_llama_reranker(checkpoint: Checkpoint) -> PairEncoder:
    """Return NVIDIA's reranker, whose score is divided by a temperature."""
    config, weights = checkpoint.config, checkpoint.weights
    record, table = _read_encoder(checkpoint)
    temperature = {"temperature": 1.0, **config}
    require_number(temperature, "temperature", 0, 1e6)

    def derive_score() -> Array:
        return np.divide(weights.read("score.weight"), np.float32(temperature["temperature"]))

    return PairEncoder(
        DerivedWeights(weights, "score.weight", weights.shape("score.weight"), derive_score),
        record,
        SentenceHead(_read_pooling(config), (DenseLayer("score", 1),), normalize=False),
        vocab_size=count_rows(checkpoint, table, "token embeddings"),
        max_tokens=config["max_position_embeddings"],
        rank=RankSpec("identity", *read_special_tokens(load_tokenizer(prepare_tokenizer(checkpoint.tokenizer)))),
        query_prefix=QUESTION,
        passage_prefix=PASSAGE,
        is_bidirectional=True,
    )


def _read_qwen3_reranker(checkpoint: Checkpoint) -> PairEncoder:
    """Return Qwen3, whose score is how much likelier its next token is `yes` than `no`.

    A checkpoint that was made a classifier has the difference of both rows of the output layer as `score.weight`.
    """
    config, weights = checkpoint.config, checkpoint.weights
    record, table = _read_encoder(checkpoint)
    tokenizer = load_tokenizer(prepare_tokenizer(checkpoint.tokenizer))
    scored: Weights = weights
    answers = None
    if "score.weight" not in weights.names:
        answers = (_find_token(tokenizer, "yes"), _find_token(tokenizer, "no"))
        output = "lm_head.weight" if "lm_head.weight" in weights.names else table

        def derive_score() -> Array:
            yes, no = weights.read(output)[list(answers)]
            difference: Array = yes - no
            return difference[np.newaxis]

        scored = DerivedWeights(weights, "score.weight", (1, config["hidden_size"]), derive_score)
    return PairEncoder(
        scored,
        record,
        SentenceHead("last", (DenseLayer("score", 1),), normalize=False),
        vocab_size=count_rows(checkpoint, table, "token embeddings"),
        max_tokens=config["max_position_embeddings"],
        rank=_read_chat(tokenizer),
        query_prefix=f"<Instruct>: {QWEN3_INSTRUCTION}\n<Query>: ",
        passage_prefix="\n<Document>: ",
        is_chat=True,
        answers=answers,
    )


def _read_chat(tokenizer: Tokenizer) -> RankSpec:
    """Return the chat around a pair, whose special tokens are those of the model."""
    head, tail = read_special_tokens(tokenizer)
    before, after = (tokenizer.encode(text, add_special_tokens=False).ids for text in (QWEN3_HEAD, QWEN3_TAIL))
    return RankSpec("sigmoid", head=(*before, *head), tail=(*tail, *after))


def _find_token(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"tokenizer.json has no token {token!r}, with which a Qwen3 reranker answers")
    return found


def _read_encoder(checkpoint: Checkpoint) -> tuple[RecordEncoder, str]:
    """Return what records the decoder, and the name of its token embedding table."""
    config = checkpoint.config
    _check(config)
    prefix = find_prefix(checkpoint.weights, "embed_tokens.weight", ("", "model."))
    kinds, kind_of_layer = _read_layers(config)

    def record(layers: Layers, input_ids: ir.Value, lengths: ir.Value) -> tuple[ir.Value, Sequences]:
        decoder = Decoder(layers, config, _STYLES[config["model_type"]], prefix)
        sequences = {}
        for name, kind in kinds.items():
            with layers.op.scope(name):
                sequences[name] = decoder.cut(lengths, layers.op.Shape(input_ids), kind)
        hidden = decoder.record(decoder.embed(input_ids), [sequences[name] for name in kind_of_layer])
        return hidden, sequences[kind_of_layer[0]]

    return record, f"{prefix}embed_tokens.weight"


def _read_sentence(checkpoint: Checkpoint) -> SentenceEmbedding:
    """Return how a text becomes one vector; NVIDIA's checkpoints may say so in `config.json` alone."""
    config, sentence = checkpoint.config, read_sentence_embedding(checkpoint)
    if checkpoint.modules is not None:
        return sentence
    if config["model_type"] != "llama_bidirec":
        kind = f"a text generator ({config['model_type']}) without modules.json"
        hint = " (a Qwen3 reranker needs --task rank)" if config["model_type"] == "qwen3" else ""
        raise CheckpointError(f"{checkpoint.folder} is {kind}, not an embedding model{hint}")
    return replace(sentence, head=SentenceHead(_read_pooling(config)))


def _read_pooling(config: Mapping[str, Any]) -> Pooling:
    """Return how NVIDIA's checkpoints pool."""
    if config.get("pooling") not in _POOLINGS:
        raise CheckpointError(f"pooling {config.get('pooling')!r} is not supported (supported: {', '.join(_POOLINGS)})")
    return _POOLINGS[config["pooling"]]


def _check(config: Mapping[str, Any]) -> None:
    require_decoder(config)
    require_sizes(config, "max_position_embeddings")
    expected = _STYLES[config["model_type"]].activation
    activation = config.get("hidden_activation", config.get("hidden_act", expected))
    if activation != expected:
        raise CheckpointError(
            f"activation {activation!r} is not supported for {config['model_type']}; only {expected!r} is"
        )
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(name) is not None:
            raise CheckpointError(f"{name} is not supported")
    scalar = config.get("query_pre_attn_scalar")
    if scalar is not None and scalar != read_heads(config).size:
        raise CheckpointError(
            f"query_pre_attn_scalar is {scalar}; only head_dim ({read_heads(config).size}) is supported"
        )


def _read_layers(config: Mapping[str, Any]) -> tuple[dict[str, LayerKind], list[str]]:
    """Return the kinds of layers by name, and the kind of each layer."""
    count = config["num_hidden_layers"]
    if config["model_type"] == "llama_bidirec":
        return {_FULL: LayerKind(config)}, [_FULL] * count
    if config.get("use_sliding_window") and not config.get("layer_types"):
        raise CheckpointError("use_sliding_window is not supported without layer_types")
    of_layers = list(config.get("layer_types") or [_FULL] * count)
    if len(of_layers) != count or not set(of_layers) <= {_FULL, _SLIDING}:
        raise CheckpointError(f"layer_types must name {_FULL} or {_SLIDING} for each of {count} layers")
    is_bidirectional = bool(config.get("use_bidirectional_attention"))
    kinds = {_FULL: LayerKind(_rope(config, _FULL), EVERYTHING if is_bidirectional else CAUSAL)}
    if _SLIDING in of_layers:
        require_sizes(config, "sliding_window")
        window = config["sliding_window"]
        # transformers halves the window of bidirectional layers, its own row included.
        reach = Reach(window // 2, window // 2) if is_bidirectional else Reach(window - 1, 0)
        kinds[_SLIDING] = LayerKind(_rope(config, _SLIDING), reach)
    return kinds, of_layers


def _rope(config: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the rotary parameters of a kind of layers; Gemma's sliding layers turn faster."""
    parameters = config.get("rope_parameters") or {}
    if kind in parameters:
        return {"rope_parameters": parameters[kind]}
    if kind == _SLIDING and "rope_local_base_freq" in config:
        return {"rope_theta": config["rope_local_base_freq"]}
    return config
