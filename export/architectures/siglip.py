"""SigLIP and SigLIP 2 of a fixed resolution: texts and images in one space, by two towers that attend to everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.architectures import Plan
from export.architectures.dual_encoder import DualEncoder, plan_dual_encoder, read_tower_config
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.siglip import record_image_tower
from export.graphs.towers import record_text_tower
from export.spec import Precision, Target
from export.tokenizer import pad_to, prepare_tokenizer, surround

_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
_VISION_DEFAULTS = _DEFAULTS | {"image_size": 224, "patch_size": 16, "num_channels": 3}
_TOKENIZER_CONFIG = "tokenizer_config.json"
# What transformers' SiglipTokenizer does before it tokenises; a `tokenizer.json` beside it may do so as well.
_CANONICAL = (
    {"type": "Replace", "pattern": {"Regex": r"[!-/:-@\[-`{-~]"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Strip", "strip_left": True, "strip_right": True},
)


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of two graphs: the text tower and the image tower, each with its head.

    Raises:
        CheckpointError: A file is missing or asks for something that the graphs do not support.
    """
    text = read_tower_config(checkpoint.config, "text_config", _DEFAULTS)
    vision = read_tower_config(checkpoint.config, "vision_config", _VISION_DEFAULTS)
    if vision.get("vision_use_head") is False:
        raise CheckpointError("the image tower has no head (vision_use_head), so it makes no embeddings")
    encoder = DualEncoder(
        text,
        vision,
        lambda layers, input_ids, lengths: record_text_tower(layers, text, input_ids, lengths),
        lambda layers, patches: record_image_tower(layers, vision, patches),
        text_projection="text_model.head",
        tokenizer=_prepare_tokenizer(checkpoint),
    )
    return plan_dual_encoder(checkpoint, precision, target, encoder)


def _prepare_tokenizer(checkpoint: Checkpoint) -> bytes:
    """Return the tokenizer that lowers texts and pads them to the longest input, as in the training of the model.

    The text tower attends to padding, and its vector is that of the last token, mostly padding.
    """
    config = checkpoint.require_json(_TOKENIZER_CONFIG)
    is_first_generation = config.get("tokenizer_class") == "SiglipTokenizer"
    tokenizer = prepare_tokenizer(
        checkpoint.tokenizer,
        lowercase=config.get("do_lower_case") is not False,
        normalizers=_CANONICAL if is_first_generation else (),
    )
    if "add_bos_token" in config and "add_eos_token" in config:  # which Gemma's tokenizer puts above tokenizer.json
        before = [_read_token(config, "bos_token")] if config["add_bos_token"] else []
        after = [_read_token(config, "eos_token")] if config["add_eos_token"] else []
        tokenizer = surround(tokenizer, before, after)
    length = checkpoint.weights.shape("text_model.embeddings.position_embedding.weight")[0]
    return pad_to(tokenizer, length, _read_token(config, "pad_token"))


def _read_token(config: Mapping[str, Any], name: str) -> str:
    token = config.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        raise CheckpointError(f"{_TOKENIZER_CONFIG} names no {name}, which SigLIP adds to its texts")
    return token
