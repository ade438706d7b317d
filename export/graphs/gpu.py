"""What the forms of a graph for GPUs have in common, in plain ONNX: layers, the layout of a batch, and pooling.

A GPU is slow where the processor has to wait for it, and where it writes a tensor to memory only to read it again. So
nothing here loops, has a size that only the GPU knows, or splits a tensor: queries, keys and values, for which a CPU
has one product, have one each. Rows keep the type of matrix products from one product to the next. The residual stream
and normalisation are float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from export.graphs.layers import Batch, HeadNorms, Layers
from export.graphs.packed import Packing, pack_by_comparison, row_numbers
from export.graphs.pooling import Pooling


@dataclass(frozen=True)
class GpuLayers(Layers, ABC):
    """A recorder of layers whose rows have the type of matrix products, except where it says otherwise."""

    def linear(self, x: ir.Value, *names: str) -> ir.Value:
        """Record one linear layer.

        Args:
            x: Rows `(rows, inputs)`, float32 or of the type of matrix products.
            names: The layer, as `torch.nn.Linear` stores it: `.weight` `(outputs, inputs)` and optionally `.bias`.

        Returns:
            Rows `(rows, outputs)`.
        """
        [name] = names
        product, bias = self.multiply(x, self.matrix(name)), self.bias(name)
        return product if bias is None else self.typed(self.op.Add(product, bias))

    def matrix(self, name: str) -> ir.Value:
        """Return the matrix of a linear layer, `(inputs, outputs)`."""
        weight = f"{name}.weight"
        outputs, inputs = self.weights.shape(weight)
        return self.op.weight(weight, lambda: self.weights.read(weight).T, [inputs, outputs], self.dtype)

    def bias(self, name: str) -> ir.Value | None:
        """Return the bias of a linear layer, `(outputs,)`, or None if it has none."""
        bias = f"{name}.bias"
        if bias not in self.weights.names:
            return None
        return self.op.weight(bias, lambda: self.weights.read(bias), self.weights.shape(bias), self.dtype)

    def rms_norm(self, x: ir.Value, name: str, epsilon: float, offset: float = 0.0) -> ir.Value:
        """Record a root-mean-square normalisation of rows."""
        return self.narrow(super().rms_norm(self.widen(x), name, epsilon, offset))

    def layer_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """Record a layer normalisation of rows; its result is float32."""
        return super().layer_norm(self.widen(x), name, epsilon)

    def activation(self, x: ir.Value, kind: str) -> ir.Value:
        """Record an activation by its name in `config.json`."""
        return self.typed(super().activation(x, kind))

    def gated_feed_forward(self, x: ir.Value, gate: str, up: str, down: str, activation: str = "silu") -> ir.Value:
        """Record the product of two linear layers, of which `gate` has an activation, and a third layer over it."""
        opened = self.activation(self.linear(x, gate), activation)
        return self.linear(self.typed(self.op.Mul(opened, self.linear(x, up))), down)

    def add(self, hidden: ir.Value, x: ir.Value) -> ir.Value:
        """Record the sum of the residual stream, float32, and the output of a layer."""
        return self.op.Add(hidden, self.widen(x))

    @abstractmethod
    def sequences(self, batch: Batch) -> GpuSequences:
        """Record the layout of a batch, once for all layers that attend in the same way."""


@dataclass(frozen=True)
class GpuSequences(ABC):
    """Sequences whose attention is one operator.

    Attributes:
        layers: The graph and the checkpoint.
        batch: The sequences.
    """

    layers: GpuLayers
    batch: Batch

    @cached_property
    def packing(self) -> Packing:
        """The layout of the rows, recorded when it is first asked for: attention does not need it."""
        with self.layers.op.scope("packing"):
            return pack_by_comparison(self.layers.op, self.batch.lengths, self.batch.rows)

    def attend(self, x: ir.Value, query: str, key: str, value: str, norms: HeadNorms | None = None) -> ir.Value:
        """Record the attention of each row to the rows that it reaches, as `Sequences` describes it."""
        layers, x = self.layers, self.layers.narrow(x)
        queries, keys = layers.linear(x, query), layers.linear(x, key)
        if norms is not None:
            queries, keys = layers.normalize_heads(queries, keys, norms, self.batch.heads.size)
        attended = self.attend_packed(self.rotate(queries), self.rotate(keys), layers.linear(x, value))
        return layers.typed(attended)

    @abstractmethod
    def rotate(self, x: ir.Value) -> ir.Value:
        """Rotate the heads of rows by the angles of their positions, if this model does so."""

    @abstractmethod
    def attend_packed(self, query: ir.Value, key: ir.Value, value: ir.Value) -> ir.Value:
        """Record the attention operator over rows `(rows, heads * head size)`."""

    def pool(self, hidden: ir.Value, pooling: Pooling) -> ir.Value:
        """Reduce the rows of each sequence to one, as `Sequences` describes it."""
        op = self.layers.op
        if pooling == "mean":
            pooled = self._mean(hidden)
        elif pooling == "cls":
            pooled = op.Gather(self.layers.widen(hidden), op.Min(self.packing.starts, op.Sub(self.batch.rows, 1)))
        elif pooling == "last":
            last = op.Sub(op.Add(self.packing.starts, self.batch.lengths), 1)
            pooled = op.Gather(self.layers.widen(hidden), op.Max(last, 0))
        else:
            pooled = self._max(self.layers.widen(hidden))
        return op.Where(op.Unsqueeze(op.Greater(self.batch.lengths, 0), [1]), pooled, float("nan"))

    def _mean(self, hidden: ir.Value) -> ir.Value:
        """Return the mean of the rows of each sequence, as one product: the same in every run, unlike a scatter.

        A row that is not finite would spread to all sequences, so it takes part as zeros, and makes its sequence NaN.
        """
        op, layers = self.layers.op, self.layers
        hidden = layers.narrow(hidden)
        is_bad = op.IsNaN(op.Sub(hidden, hidden))  # infinity less infinity is NaN
        finite = layers.typed(op.Where(is_bad, np.zeros((), layers.dtype.numpy()), hidden))
        bad_rows = layers.typed(op.ReduceMax(op.Cast(is_bad, to=layers.dtype), [1], keepdims=1))
        shares = self._shares()
        mean, bad_share = (layers.widen(layers.multiply(shares, x)) for x in (finite, bad_rows))
        return op.Where(op.Greater(bad_share, 0.0), float("nan"), mean)

    def _shares(self) -> ir.Value:
        """Return the share of each row in the mean of each sequence, `(sequences, rows)`: 1 / length, or 0."""
        op = self.layers.op
        sequence = op.Unsqueeze(row_numbers(op, op.Shape(self.batch.lengths)), [1])
        is_member = op.Equal(sequence, op.Unsqueeze(self.packing.sequence, [0]))
        length = op.Unsqueeze(op.Cast(op.Max(self.batch.lengths, 1), to=ir.DataType.FLOAT), [1])
        share = self.layers.narrow(op.Div(1.0, length))
        return self.layers.typed(op.Where(is_member, share, np.zeros((), self.layers.dtype.numpy())))

    def _max(self, hidden: ir.Value) -> ir.Value:
        """Return the largest component of the rows of each sequence; the order of a scatter does not change it."""
        op = self.layers.op
        shape = op.Concat(op.Shape(self.batch.lengths), op.Shape(hidden, start=1, end=2), axis=0)
        lowest = op.Expand(float("-inf"), shape)
        sequence = op.Expand(op.Unsqueeze(self.packing.sequence, [1]), op.Shape(hidden))
        return op.ScatterElements(lowest, sequence, hidden, axis=0, reduction="max")
