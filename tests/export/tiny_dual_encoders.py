"""Dual encoders with random weights, small enough to write in each test run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from tests.export.tiny_bert import character_tokenizer, write_json

EOS_ID = 3
VOCAB_SIZE = 192


def write_siglip(folder: Path, text: Mapping[str, Any] | None = None, vision: Mapping[str, Any] | None = None) -> Path:
    """Write a SigLIP whose images are 28 pixels wide, in nine patches of eight pixels and a rest."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    own = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 40}
    images = {"image_size": 28, "patch_size": 8}
    config = SiglipConfig(
        text_config={**sizes, **own, **(text or {})}, vision_config={**sizes, **images, **(vision or {})}
    )
    side = config.vision_config.image_size
    SiglipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    write_json(folder / "tokenizer_config.json", {"pad_token": "[PAD]", "do_lower_case": True})
    return _write_model(folder, SiglipModel(config))


def write_clip(folder: Path, text: Mapping[str, Any] | None = None, vision: Mapping[str, Any] | None = None) -> Path:
    """Write a CLIP whose images are 30 pixels wide, cut from images whose shorter side has 36."""
    own = {
        "vocab_size": VOCAB_SIZE, "max_position_embeddings": 48, "eos_token_id": EOS_ID, "hidden_size": 24,
        "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2,
    }  # fmt: skip
    images = {
        "image_size": 30, "patch_size": 10, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    config = CLIPConfig(
        text_config={**own, **(text or {})}, vision_config={**images, **(vision or {})}, projection_dim=20
    )
    side = config.vision_config.image_size
    size, crop_size = {"shortest_edge": side + 6}, {"height": side, "width": side}
    CLIPImageProcessor(size=size, crop_size=crop_size).save_pretrained(folder)
    return _write_model(folder, CLIPModel(config))


WRITERS = {"siglip": write_siglip, "clip": write_clip}


def _write_model(folder: Path, model: PreTrainedModel) -> Path:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        is_norm = "norm" in name or "layrnorm" in name
        torch.nn.init.normal_(parameter, 1.0 if is_norm and name.endswith("weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    character_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n\nRandom weights.\n")
    return folder
