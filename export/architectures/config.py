"""Checks of the values in a checkpoint's JSON files: each is refused by its name, with the values that are possible.

The limits are far above those of any published model. They keep an absurd number from taking the memory or the time of
the machine that exports or serves it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from export.errors import CheckpointError
from export.graphs.decoder import read_heads

MAX_SIZES: Mapping[str, int] = {
    "force_image_size": 8192,
    "head_dim": 8192,
    "hidden_size": 1 << 17,
    "image_size": 8192,
    "intermediate_size": 1 << 20,
    "max_input_tiles": 128,
    "max_position_embeddings": 1 << 24,
    "num_attention_heads": 4096,
    "num_channels": 16,
    "num_hidden_layers": 1024,
    "num_key_value_heads": 4096,
    "p_max_length": 1 << 20,
    "rerank_max_length": 1 << 20,
    "patch_size": 1024,
}
MAX_TEXT_CHARS = 4096
_MAX_SHOWN_CHARS = 40


def require_sizes(config: Mapping[str, Any], *names: str) -> None:
    """Refuse a config in which one of these entries is not a positive integer, or too large.

    Raises:
        CheckpointError: An entry is of another type, zero, negative or above its limit.
        KeyError: An entry is missing.
    """
    for name in names:
        value, limit = config[name], MAX_SIZES.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (limit and value > limit):
            bound = f" up to {limit}" if limit else ""
            raise CheckpointError(f"the checkpoint's {name} is {_show(value)}, not a positive integer{bound}")


def require_number(config: Mapping[str, Any], name: str, low: float, high: float) -> None:
    """Refuse a config in which an entry is not a number between two others, which are excluded.

    Raises:
        CheckpointError: It is of another type, or outside the range.
        KeyError: It is missing.
    """
    value = config[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not low < value < high:
        raise CheckpointError(f"the checkpoint's {name} is {_show(value)}, not a number between {low:g} and {high:g}")


def require_flag(config: Mapping[str, Any], name: str) -> None:
    """Refuse a config in which an entry is neither true nor false: the text `"false"` would count as true.

    Raises:
        CheckpointError: It is anything else.
        KeyError: It is missing.
    """
    if not isinstance(config[name], bool):
        raise CheckpointError(f"the checkpoint's {name} is {_show(config[name])}, not true or false")


def require_text(config: Mapping[str, Any], name: str) -> None:
    """Refuse a config in which an entry is not a text of at most `MAX_TEXT_CHARS` characters.

    Raises:
        CheckpointError: It is of another type, or longer.
        KeyError: It is missing.
    """
    if not isinstance(config[name], str) or len(config[name]) > MAX_TEXT_CHARS:
        shown = _show(config[name])
        raise CheckpointError(f"the checkpoint's {name} is {shown}, not a text of at most {MAX_TEXT_CHARS} characters")


def require_objects(config: Mapping[str, Any], *names: str) -> None:
    """Refuse a config in which one of these entries is not an object.

    Raises:
        CheckpointError: An entry is of another type.
        KeyError: An entry is missing.
    """
    for name in names:
        if not isinstance(config[name], dict):
            raise CheckpointError(f"the checkpoint's {name} is {_show(config[name])}, not an object")


def require_multiple(config: Mapping[str, Any], name: str, divisor: str) -> None:
    """Refuse a config in which one entry is not a multiple of another.

    Raises:
        CheckpointError: The division has a remainder.
    """
    if config[name] % config[divisor]:
        value = config[name]
        raise CheckpointError(f"the checkpoint's {name} is {value}, not a multiple of {divisor} ({config[divisor]})")


def require_decoder(config: Mapping[str, Any]) -> None:
    """Refuse a language model's config with impossible sizes, heads or rotary positions.

    Raises:
        CheckpointError: A number is out of range.
        KeyError: An entry is missing.
    """
    require_sizes(config, "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    require_number(config, "rms_norm_eps", 0, 1)
    require_rope(config)
    if config.get("num_key_value_heads") is not None:
        require_sizes(config, "num_key_value_heads")
        require_multiple(config, "num_attention_heads", "num_key_value_heads")
    if config.get("head_dim") is None:
        require_multiple(config, "hidden_size", "num_attention_heads")
    else:
        require_sizes(config, "head_dim")
    if read_heads(config).size % 2:
        raise CheckpointError(f"the checkpoint's head_dim is {read_heads(config).size}, not an even number")


def require_rope(config: Mapping[str, Any]) -> None:
    """Refuse a language model's config with impossible rotary positions.

    Raises:
        CheckpointError: A number is out of range, or the parameters are not an object.
    """
    for name in ("rope_parameters", "rope_scaling"):
        if config.get(name) is not None:
            require_objects(config, name)
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = {"rope_theta": rope.get("rope_theta", config.get("rope_theta", 10000.0))}
    require_number(theta, "rope_theta", 0, 1e12)
    if rope.get("rope_type", rope.get("type")) == "llama3":
        require_sizes(rope, "original_max_position_embeddings")
        require_number(rope, "factor", 0, 1e6)
        require_number(rope, "low_freq_factor", 0, 1e6)
        require_number(rope, "high_freq_factor", rope["low_freq_factor"], 1e6)


def _show(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN_CHARS else f"{shown[:_MAX_SHOWN_CHARS]}…"
