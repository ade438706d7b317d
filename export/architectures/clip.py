"""CLIP: texts and images in one space, by a causal text tower and an image tower with a first row of its own."""

from __future__ import annotations

from export.architectures import Plan
from export.architectures.dual_encoder import DualEncoder, plan_dual_encoder, read_tower_config
from export.checkpoint import Checkpoint
from export.graphs.blocks import CAUSAL
from export.graphs.clip import record_image_tower
from export.graphs.towers import record_text_tower
from export.spec import Precision, Target
from export.tokenizer import prepare_tokenizer

_DEFAULTS = {"num_hidden_layers": 12, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
_TEXT_DEFAULTS = _DEFAULTS | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
_VISION_DEFAULTS = _DEFAULTS | {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224, "patch_size": 32,
    "num_channels": 3,
}  # fmt: skip


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of two graphs: the text tower and the image tower, each with its projection.

    Raises:
        CheckpointError: A file is missing or asks for something that the graphs do not support.
    """
    text = read_tower_config(checkpoint.config, "text_config", _TEXT_DEFAULTS)
    vision = read_tower_config(checkpoint.config, "vision_config", _VISION_DEFAULTS)
    encoder = DualEncoder(
        text,
        vision,
        lambda layers, input_ids, lengths: record_text_tower(layers, text, input_ids, lengths, CAUSAL),
        lambda layers, patches: record_image_tower(layers, vision, patches),
        text_projection="text_projection",
        tokenizer=prepare_tokenizer(checkpoint.tokenizer),
    )
    return plan_dual_encoder(checkpoint, precision, target, encoder)
