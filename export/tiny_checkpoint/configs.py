"""The JSON files of a checkpoint."""

from __future__ import annotations

from typing import Any

from export.tiny_checkpoint.widths import Widths


def model_config(widths: Widths, image_token_id: int, dtype: str) -> dict[str, Any]:
    """The content of config.json, in the older of the two ways to write rope parameters."""
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


def processor_config() -> dict[str, Any]:
    """The content of processor_config.json."""
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
