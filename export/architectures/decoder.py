"""Text embedders made of decoders: Llama with bidirectional attention, Qwen3, Gemma 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir

from export.architectures import Plan
from export.architectures.config import require_decoder, require_sizes
from export.architectures.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.architectures.text import TextEncoder, count_rows, plan_text_embedder
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.blocks import CAUSAL, EVERYTHING, Reach
from export.graphs.decoder import GEMMA3, LLAMA, QWEN3, Decoder, DecoderStyle, LayerKind, read_heads
from export.graphs.layers import Layers, Sequences
from export.graphs.nemotron_vl import POOLINGS
from export.graphs.text_embedder import SentenceHead, build_text_embedder
from export.graphs.weights import find_prefix
from export.spec import Pooling, Precision, Target

_STYLES: Mapping[str, DecoderStyle] = {"llama_bidirec": LLAMA, "qwen3": QWEN3, "gemma3_text": GEMMA3}
_POOLINGS: Mapping[str, Pooling] = POOLINGS | {"last": "last"}

_FULL, _SLIDING = "full_attention", "sliding_attention"


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text embedder.

    Raises:
        CheckpointError: A file is missing or asks for something that the graph does not support.
        KeyError: `config.json` lacks a number.
    """
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

    encoder = TextEncoder(
        partial(build_text_embedder, checkpoint.weights, record, config["hidden_size"]),
        config["hidden_size"],
        vocab_size=count_rows(checkpoint, f"{prefix}embed_tokens.weight", "token embeddings"),
        max_tokens=config["max_position_embeddings"],
        is_bidirectional=config["model_type"] == "llama_bidirec",
    )
    return plan_text_embedder(checkpoint, precision, target, encoder, _read_sentence(checkpoint))


def _read_sentence(checkpoint: Checkpoint) -> SentenceEmbedding:
    """Return how a text becomes one vector; NVIDIA's checkpoints may say so in `config.json` alone."""
    config, sentence = checkpoint.config, read_sentence_embedding(checkpoint)
    if checkpoint.modules is not None:
        return sentence
    if config["model_type"] != "llama_bidirec":
        kind = f"a text generator ({config['model_type']}) without modules.json"
        raise CheckpointError(f"{checkpoint.folder} is {kind}, not an embedding model")
    if config.get("pooling") not in _POOLINGS:
        raise CheckpointError(f"pooling {config.get('pooling')!r} is not supported (supported: {', '.join(_POOLINGS)})")
    return replace(sentence, head=SentenceHead(_POOLINGS[config["pooling"]]))


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
