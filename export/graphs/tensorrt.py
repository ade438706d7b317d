"""The forms of a graph for TensorRT, which makes an engine of it on the machine that serves.

TensorRT fuses normalisation, activations and rotation by itself, so only attention is written in its own operator:
`TRT_Attention`, which takes packed rows since TensorRT 11. Before that, attention has to be `dense`: a product of all
rows with all rows, of which a mask keeps those of the same sequence. Its cost grows with the square of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from export.graphs.attention import is_reached
from export.graphs.blocks import CAUSAL, EVERYTHING, Reach
from export.graphs.builder import TENSORRT, Attribute
from export.graphs.gpu import GpuLayers, GpuSequences
from export.graphs.layers import Batch
from export.graphs.pooling import Pooling
from export.graphs.rope import Rotation, record_rotation, rotate

# The name of each reach that the operator has over packed rows.
_CAUSAL_KINDS: Mapping[Reach, str] = {EVERYTHING: "none", CAUSAL: "upper_left"}


@dataclass(frozen=True)
class TensorrtLayers(GpuLayers):
    """A recorder of layers whose attention is `TRT_Attention`."""

    def sequences(self, batch: Batch) -> PackedTensorrtSequences:
        """Record the layout of a batch, once for all layers that attend in the same way.

        Raises:
            ValueError: Attention is local: over packed rows, the operator is causal or has no mask.
        """
        if batch.reach not in _CAUSAL_KINDS:
            raise ValueError("local attention has no form for TensorRT yet: export with --target cuda or cpu")
        return PackedTensorrtSequences(self, batch)


@dataclass(frozen=True)
class DenseTensorrtLayers(GpuLayers):
    """A recorder of layers whose attention is dense and masked."""

    def sequences(self, batch: Batch) -> DenseTensorrtSequences:
        """Record the layout of a batch, once for all layers that attend in the same way."""
        return DenseTensorrtSequences(self, batch)


@dataclass(frozen=True)
class TensorrtSequences(GpuSequences):
    """Sequences whose rows are rotated in plain ONNX."""

    @cached_property
    def rotation(self) -> Rotation | None:
        """The angles of the rows; None if queries and keys are not rotated."""
        if self.batch.frequencies is None:
            return None
        with self.layers.op.scope("rotation"):
            return record_rotation(self.layers.op, self.packing.position, self.batch.frequencies)

    def rotate(self, x: ir.Value) -> ir.Value:
        """Rotate the heads of rows `(rows, heads * head size)`, if this model does so."""
        if self.rotation is None:
            return x
        layers = self.layers
        return layers.narrow(rotate(layers.op, layers.widen(x), self.rotation, self.batch.heads.size))

    def pool(self, hidden: ir.Value, pooling: Pooling) -> ir.Value:
        """Reduce the rows of each sequence to one, as `Sequences` describes it.

        Raises:
            ValueError: The pooling is `max`, for which TensorRT has no scatter.
        """
        if pooling == "max":
            raise ValueError("pooling 'max' is not supported for TensorRT (supported: 'mean', 'cls', 'last')")
        return super().pool(hidden, pooling)

    def scale(self, query: ir.Value) -> ir.Value:
        """Divide queries by the square root of the head size, which TensorRT's attention leaves to the graph."""
        factor = np.array(self.batch.heads.size**-0.5, self.layers.dtype.numpy())
        return self.layers.op.Mul(query, factor)


@dataclass(frozen=True)
class PackedTensorrtSequences(TensorrtSequences):
    """Sequences whose attention is `TRT_Attention`, where query heads share key heads without copies of them."""

    @cached_property
    def boundaries(self) -> tuple[ir.Value, ir.Value]:
        """The first row of each sequence, and one past the last of all, `(sequences + 1,)` int32.

        For queries and for keys: TensorRT crashes if the operator gets the same tensor twice.
        """
        op = self.layers.op

        def record() -> ir.Value:
            ends = op.CumSum(op.Cast(self.batch.lengths, to=ir.DataType.INT32), 0)
            return op.Concat(np.zeros(1, np.int32), ends, axis=0)

        with op.scope("packing"):
            return record(), record()

    def attend_packed(self, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Record the attention operator over rows `(rows, heads * head size)`."""
        queries = self._separate(self.scale(query), self.batch.heads.query)
        keys, values = (self._separate(x, self.batch.heads.key_value) for x in (key, value))
        operands = (queries, keys, values, None, *self.boundaries)
        # Without a fused kernel for these heads, TensorRT may take several.
        attributes: Mapping[str, Attribute] = {
            "query_form": "packed_nhd",
            "kv_form": "packed_nhd",
            "causal_kind": _CAUSAL_KINDS[self.batch.reach],
            "TRT_decomposable": 1,
        }
        [attended] = self.layers.op.record("TRT_Attention", operands, attributes, domain=TENSORRT)
        return self.layers.op.Reshape(attended, [0, self.batch.heads.query * self.batch.heads.size])

    def _separate(self, x: ir.Value, count: int) -> ir.Value:
        """Return rows as `(rows, heads, head size)`."""
        separate = self.layers.typed(self.layers.op.Reshape(x, [0, count, self.batch.heads.size]))
        separate.shape = ir.Shape([None, count, self.batch.heads.size])
        return separate


@dataclass(frozen=True)
class DenseTensorrtSequences(TensorrtSequences):
    """Sequences whose attention is dense: within each sequence if all have the same length, or else over all rows."""

    @cached_property
    def is_reached(self) -> ir.Value:
        """Whether a row attends to another, `(rows, rows)`: if it is of the same sequence, and near enough."""
        op, packing = self.layers.op, self.packing
        is_same = op.Equal(op.Unsqueeze(packing.sequence, [1]), op.Unsqueeze(packing.sequence, [0]))
        distance = op.Sub(op.Unsqueeze(packing.position, [0]), op.Unsqueeze(packing.position, [1]))
        return is_reached(op, distance, is_same, self.batch.reach)

    def attend_packed(self, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Record dense attention of rows `(rows, heads * head size)`."""
        op, layers = self.layers.op, self.layers
        if self.batch.length is None:
            # A value that is not finite would spread to other sequences, although its weight is 0. Its key makes its
            # own sequence NaN.
            value = op.Where(op.IsNaN(value), np.zeros((), layers.dtype.numpy()), value)
        queries = self._separate(self.scale(query), self.batch.heads.query)
        keys, values = (self._separate(x, self.batch.heads.key_value) for x in (key, value))
        scores = op.MatMul(queries, op.Transpose(keys, perm=[0, 1, 3, 2]))
        if self.batch.length is None:
            scores = op.Where(self.is_reached, scores, np.array(-np.inf, layers.dtype.numpy()))
        attended = op.MatMul(op.Softmax(scores, axis=-1), values)
        joined = op.Transpose(attended, perm=[0, 2, 1, 3])
        return op.Reshape(joined, [-1, self.batch.heads.query * self.batch.heads.size])

    def _separate(self, x: ir.Value, count: int) -> ir.Value:
        """Return rows as `(1 or sequences, query heads, rows, head size)`: a key head for each query head it serves."""
        op, heads = self.layers.op, self.batch.heads
        rows = [1, -1] if self.batch.length is None else [-1, self.batch.length]
        separate = op.Transpose(op.Reshape(x, [*rows, count, heads.size]), perm=[0, 2, 1, 3])
        if count == heads.query:
            return separate
        return op.Gather(separate, np.repeat(np.arange(count), heads.query // count), axis=1)
