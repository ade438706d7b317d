"""The form of a graph for ONNX Runtime's CUDA provider: its own operators for attention, rotation and activations.

`PackedMultiHeadAttention` takes packed rows as they are. With queries, keys and values in three tensors, without a bias
and in float16, it is FlashAttention on GPUs since Ampere, and memory-efficient attention otherwise: neither has a mask
or scores in memory. Causal and local attention are memory-efficient attention with a bias for all sequences, whose
size is the square of the longest: FlashAttention takes none. The processor waits for the GPU once in a run, for the
length of the longest sequence.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from export.graphs.attention import is_reached
from export.graphs.blocks import EVERYTHING, Reach
from export.graphs.builder import GraphBuilder
from export.graphs.gpu import GpuLayers, GpuSequences
from export.graphs.layers import Batch
from export.graphs.packed import row_numbers
from export.graphs.weights import Array

MAX_ROWS = 1 << 17
"""Rows of a batch that rotates queries and keys: `RotaryEmbedding` refuses more than its tables have."""

COLUMN_MULTIPLE = 16
"""Memory-efficient attention takes a bias only for lengths that are a multiple of 8 in float16, or of 16 in float32."""

OUT_OF_REACH = -32752.0
"""Bias of keys that are not reached. It is finite, so that a kernel may begin with keys of which it reaches none."""

# Operator that adds a bias and applies an activation, by its name in config.json.
_BIASED_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}


@dataclass(frozen=True)
class CudaLayers(GpuLayers):
    """A recorder of layers in operators that ONNX Runtime has kernels for, each of which replaces several."""

    def rms_norm(self, x: ir.Value, name: str, epsilon: float, offset: float = 0.0) -> ir.Value:
        """Record a root-mean-square normalisation of rows."""
        weight = f"{name}.weight"

        def read() -> Array:
            return self.weights.read(weight) + np.float32(offset)

        scale = self.op.weight(weight, read, self.weights.shape(weight), self.dtype)
        # The operator has a result of the type of `scale`, and no domain, though it is not one of ONNX.
        return self.typed(self.op.SimplifiedLayerNormalization(x, scale, axis=-1, epsilon=epsilon, stash_type=1))

    def feed_forward(self, x: ir.Value, inner: str, outer: str, activation: str) -> ir.Value:
        """Record two linear layers with an activation between them, named as in `config.json`."""
        bias = self.bias(inner)
        if bias is None or activation not in _BIASED_ACTIVATIONS:
            return super().feed_forward(x, inner, outer, activation)
        product = self.multiply(x, self.matrix(inner))
        return self.linear(self.typed(self.op.contrib(_BIASED_ACTIVATIONS[activation], product, bias)), outer)

    def silu(self, x: ir.Value) -> ir.Value:
        """Record the activation SiLU, which is the sigmoid approximation of GELU without its factor of 1.702."""
        return self.op.contrib("QuickGelu", x, alpha=1.0)

    def sequences(self, batch: Batch) -> CudaSequences:
        """Record the layout of a batch, once for all layers that attend in the same way."""
        op = self.op
        with op.scope("packing"):
            counts = op.Cast(batch.lengths, to=ir.DataType.INT32)
            cumulative = op.Concat(np.zeros(1, np.int32), op.CumSum(counts, 0), axis=0)
            column = op.once(f"columns of {batch.lengths.name}", lambda: _columns(op, batch))
            if self.dtype == ir.DataType.FLOAT16 and batch.heads.size % 8 == 0:
                # The kernels for these read nothing but the shape of the offsets.
                offsets = op.Add(op.Unsqueeze(op.Sub(counts, counts), [1]), column)
            else:
                offsets = order_padded_rows(op, counts, column)
            bias = None if batch.reach == EVERYTHING else self._bias(column, batch.reach)
        return CudaSequences(self, batch, cumulative, offsets, bias)

    def _bias(self, column: ir.Value, reach: Reach) -> ir.Value:
        """Return what is added to the scores of a padded sequence, `(1, 1, columns, columns)`."""
        op = self.op
        place = op.Cast(column, to=ir.DataType.INT64)
        distance = op.Sub(op.Unsqueeze(place, [0]), op.Unsqueeze(place, [1]))
        reached = is_reached(op, distance, op.GreaterOrEqual(place, 0), reach)
        numbers = (np.array(x, self.dtype.numpy()) for x in (0, OUT_OF_REACH))
        return op.Unsqueeze(op.Where(reached, *numbers), [0, 1])


def _columns(op: GraphBuilder, batch: Batch) -> ir.Value:
    """Return `0 … columns - 1` int32, for the longest sequence or a little more."""
    if batch.length is not None:
        return op.Cast(op.Range(0, batch.length, 1), to=ir.DataType.INT32)
    longest = op.ReduceMax(batch.lengths, keepdims=0)
    columns = op.Mul(op.Div(op.Add(longest, COLUMN_MULTIPLE - 1), COLUMN_MULTIPLE), COLUMN_MULTIPLE)
    return op.Cast(op.Range(0, columns, 1), to=ir.DataType.INT32)


def order_padded_rows(op: GraphBuilder, counts: ir.Value, column: ir.Value) -> ir.Value:
    """Return the places of all rows, and then of all padding, in sequences padded to the same length.

    Attention without a fused kernel pads its rows by them: in float32 if no sequence has 256 rows, or for heads whose
    size is not a multiple of 8.

    Args:
        op: The graph.
        counts: Number of rows of each sequence, `(sequences,)` int32.
        column: `0 … columns - 1` int32, at least as many as the longest sequence has rows.

    Returns:
        Places `(sequences, columns)` int32, from 0 to sequences * columns - 1.
    """
    count = op.Unsqueeze(counts, [1])
    rows_before = op.Unsqueeze(op.CumSum(counts, 0, exclusive=1), [1])
    sequence = op.Unsqueeze(op.Cast(row_numbers(op, op.Shape(counts)), to=ir.DataType.INT32), [1])
    columns = op.Add(op.ReduceMax(column, keepdims=1), np.ones(1, np.int32))  # `Size` would come from the processor
    place = op.Add(op.Mul(sequence, columns), column)
    rank_of_padding = op.Add(op.Sub(op.Sub(place, rows_before), count), op.ReduceSum(counts, keepdims=1))
    rank = op.Where(op.Less(column, count), op.Add(rows_before, column), rank_of_padding)
    flat = op.Reshape(place, [-1])
    return op.Reshape(op.ScatterElements(flat, op.Reshape(rank, [-1]), flat, axis=0), op.Shape(rank), allowzero=1)


@dataclass(frozen=True)
class RotaryTables:
    """Cosines and sines of all positions, `(positions, head size / 2)`, and the position of each row, `(1, rows)`."""

    cosines: ir.Value
    sines: ir.Value
    position: ir.Value


@dataclass(frozen=True)
class CudaSequences(GpuSequences):
    """Sequences whose attention is `PackedMultiHeadAttention`.

    Attributes:
        cumulative: First row of each sequence, and one past the last of all, `(sequences + 1,)` int32.
        offsets: Places of rows in padded sequences, `(sequences, columns)` int32, or any numbers of this shape.
        bias: What is added to the scores of each sequence, `(1, 1, columns, columns)`; None for nothing.
    """

    cumulative: ir.Value
    offsets: ir.Value
    bias: ir.Value | None

    @cached_property
    def tables(self) -> RotaryTables | None:
        """The tables by which queries and keys are rotated; None if they are not."""
        layers, frequencies = self.layers, self.batch.frequencies
        if frequencies is None:
            return None

        def record(name: str, function: Callable[[Array], Array]) -> ir.Value:
            def compute() -> Array:
                return function(np.outer(np.arange(MAX_ROWS, dtype=np.float32), frequencies))

            return layers.op.weight(
                f"rotation.{zlib.crc32(frequencies.tobytes())}.{name}",
                compute,
                [MAX_ROWS, len(frequencies)],
                layers.dtype,
            )

        position = layers.op.Unsqueeze(self.packing.position, [0])
        return RotaryTables(record("cosines", np.cos), record("sines", np.sin), position)

    def rotate(self, x: ir.Value) -> ir.Value:
        """Rotate the heads of rows `(rows, heads * head size)`, if this model does so."""
        if self.tables is None:
            return x
        op, tables = self.layers.op, self.tables
        operands = (op.Unsqueeze(x, [0]), tables.position, tables.cosines, tables.sines)
        return op.Squeeze(op.contrib("RotaryEmbedding", *operands), [0])

    def attend_packed(self, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Record the attention operator over rows `(rows, heads * head size)`."""
        op, heads = self.layers.op, self.batch.heads
        if heads.key_value != heads.query:
            key, value = (self._repeat(x) for x in (key, value))
        operands = [query, key, value, None, self.offsets, self.cumulative]
        if self.bias is not None:
            operands.append(self.bias)
        return op.contrib("PackedMultiHeadAttention", *operands, num_heads=heads.query, scale=float(heads.size**-0.5))

    def _repeat(self, x: ir.Value) -> ir.Value:
        """Repeat each key or value head beside itself, for the query heads that share it."""
        op, heads = self.layers.op, self.batch.heads
        separate = op.Reshape(x, [0, heads.key_value, 1, heads.size])
        repeated = op.Expand(separate, [1, 1, heads.query // heads.key_value, 1])
        return op.Reshape(repeated, [0, heads.query * heads.size])
