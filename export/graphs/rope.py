"""Rotary positions: frequencies from the config, rotation in the graph."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graphs.builder import GraphBuilder
from export.graphs.weights import Array


def rope_frequencies(config: Mapping[str, Any], head_size: int) -> Array:
    """Return the angle per position of each pair of components, `(head_size / 2,)`.

    Args:
        config: Config of a language model, with `rope_parameters`, or `rope_theta` and optionally `rope_scaling`.
        head_size: Components of one head.

    Raises:
        ValueError: The kind of scaling is neither `default` nor `llama3`.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta: float = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    frequencies: NDArray[np.float64] = theta ** -(np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "llama3":
        frequencies = _scale_as_llama3(frequencies, rope)
    elif kind != "default":
        raise ValueError(f"rope_type {kind!r} is not supported (supported: 'default', 'llama3')")
    return frequencies.astype(np.float32)


def _scale_as_llama3(frequencies: NDArray[np.float64], rope: Mapping[str, Any]) -> NDArray[np.float64]:
    """Divide low frequencies by `factor`, keep high ones and interpolate between.

    This follows `apply_scaling` of Llama 3.1's reference code.
    """
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept: NDArray[np.float64] = np.clip((turns - low) / (high - low), 0, 1)
    return np.multiply(frequencies, kept + (1 - kept) / factor)


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of each row's angles, `(rows, 1, head size / 2)` float32."""

    cosine: ir.Value
    sine: ir.Value


def record_rotation(op: GraphBuilder, position: ir.Value, frequencies: Array) -> Rotation:
    """Record the angles of positions `(rows,)` int64, once for all layers."""
    angles = op.Mul(op.Unsqueeze(op.Cast(position, to=ir.DataType.FLOAT), [1, 2]), frequencies)
    return Rotation(op.Cos(angles), op.Sin(angles))


def rotate(op: GraphBuilder, x: ir.Value, rotation: Rotation, head_size: int) -> ir.Value:
    """Rotate each head by the angles of its row; its two halves hold the two coordinates of each pair.

    Args:
        op: The graph.
        x: Rows `(rows, heads * head_size)` float32.
        rotation: The angles.
        head_size: Components of one head.

    Returns:
        Rotated rows, as `x`.
    """
    halves = op.Reshape(x, [0, -1, head_size])
    first, second = op.split(halves, [head_size // 2] * 2)
    turned_first = op.Sub(op.Mul(first, rotation.cosine), op.Mul(second, rotation.sine))
    turned_second = op.Add(op.Mul(second, rotation.cosine), op.Mul(first, rotation.sine))
    return op.Reshape(op.Concat(turned_first, turned_second, axis=-1), op.Shape(x))
