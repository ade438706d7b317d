"""The layers of transformers, bound to the tensors of a checkpoint, in plain ONNX.

Models are written in terms of `Layers`, which work on single rows, and of `Sequences`, which know where one sequence
ends and the next begins. The forms of a graph for GPUs replace both (`gpu.py`, `cuda.py`, `tensorrt.py`).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from export.graphs.attention import Heads, attend, split_heads
from export.graphs.blocks import EVERYTHING, Blocks, Reach, cut_blocks
from export.graphs.builder import GraphBuilder
from export.graphs.packed import Packing, pack
from export.graphs.pooling import Pooling, pool
from export.graphs.quantized import multiply_in_int8
from export.graphs.rope import Rotation, record_rotation, rotate
from export.graphs.weights import Array, Weights

Precision = Literal["fp32", "fp16", "int8"]

# ONNX operator and attributes of each activation, by its name in config.json.
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


@dataclass(frozen=True)
class HeadNorms:
    """Root-mean-square normalisation of each head of queries and keys, before they are rotated.

    Attributes:
        query: Its scale, `.weight` `(head size,)`, for queries.
        key: The same for keys.
        epsilon: Added to the mean square.
        offset: Added to the scales.
    """

    query: str
    key: str
    epsilon: float
    offset: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Packed sequences, and how their rows attend to one another.

    Attributes:
        lengths: Number of rows of each sequence, which may be 0, `(sequences,)` int64.
        rows: Sum of the lengths, `(1,)` int64.
        heads: The division of rows into heads.
        frequencies: Angle per position of each pair of components; None if queries and keys are not rotated.
        length: Length of all sequences, if it is the same.
        reach: Which rows of its sequence a row attends to.
    """

    lengths: ir.Value
    rows: ir.Value
    heads: Heads
    frequencies: Array | None = None
    length: int | None = None
    reach: Reach = EVERYTHING


class Sequences(Protocol):
    """Packed sequences, and the operations on them that are not the same for every row."""

    @property
    def packing(self) -> Packing:
        """The layout of the rows."""
        ...

    def attend(self, x: ir.Value, query: str, key: str, value: str, norms: HeadNorms | None = None) -> ir.Value:
        """Record the attention of each row to the rows that it reaches, without the projection of its output.

        Args:
            x: Normalised rows `(rows, hidden size)`.
            query: Linear layer that projects the queries.
            key: Linear layer that projects the keys.
            value: Linear layer that projects the values.
            norms: Normalisation of the heads of queries and keys; None for none.

        Returns:
            Attended rows `(rows, query heads * head size)`.
        """
        ...

    def pool(self, hidden: ir.Value, pooling: Pooling) -> ir.Value:
        """Reduce the rows of each sequence to one, `(sequences, dims)` float32; NaN for a sequence without rows."""
        ...


@dataclass(frozen=True)
class Layers:
    """A recorder of layers; activations between them are float32 in every precision.

    Attributes:
        op: The graph.
        weights: Tensors of the checkpoint.
        precision: `fp16` stores and multiplies matrices in float16. `int8` does so in int8 for linear layers, stores
            the token table in float16, and leaves the rest in float32.
    """

    op: GraphBuilder
    weights: Weights
    precision: Precision = "fp32"

    @property
    def dtype(self) -> ir.DataType:
        """Type of matrix products outside linear layers."""
        return ir.DataType.FLOAT16 if self.precision == "fp16" else ir.DataType.FLOAT

    def linear(self, x: ir.Value, *names: str) -> ir.Value:
        """Record several linear layers over the same rows, as one matrix product.

        Args:
            x: Rows `(rows, inputs)` float32.
            names: Layers as `torch.nn.Linear` stores them: `.weight` `(outputs, inputs)` and optionally `.bias`.

        Returns:
            Rows `(rows, outputs of all layers)` float32.

        Raises:
            ValueError: Only some of the layers have a bias.
        """
        matrices = [f"{name}.weight" for name in names]
        outputs = sum(self.weights.shape(name)[0] for name in matrices)
        inputs = self.weights.shape(matrices[0])[1]
        if self.precision == "int8":
            product = multiply_in_int8(self.op, x, "+".join(matrices), lambda: self._stack(matrices), inputs, outputs)
        else:
            matrix = self.op.weight("+".join(matrices), lambda: self._stack(matrices).T, [inputs, outputs], self.dtype)
            product = self.widen(self.multiply(x, matrix))
        biases = [f"{name}.bias" for name in names]
        present = self.weights.names.intersection(biases)
        if not present:
            return product
        if len(present) < len(biases):
            raise ValueError(f"of {', '.join(biases)} the checkpoint has only {', '.join(sorted(present))}")
        # After an int8 product, ONNX Runtime would fuse a vector and Gelu to BiasGelu, which takes 1.5 times as long.
        shape = [1, outputs] if self.precision == "int8" else [outputs]
        bias = self.op.weight("+".join(biases), lambda: self._stack(biases).reshape(shape), shape, ir.DataType.FLOAT)
        return self.op.Add(product, bias)

    def feed_forward(self, x: ir.Value, inner: str, outer: str, activation: str) -> ir.Value:
        """Record two linear layers with an activation between them, named as in `config.json`."""
        return self.linear(self.activation(self.linear(x, inner), activation), outer)

    def gated_feed_forward(self, x: ir.Value, gate: str, up: str, down: str, activation: str = "silu") -> ir.Value:
        """Record the product of two linear layers, of which `gate` has an activation, and a third layer over it."""
        opened, raised = self.linear(x, gate), self.linear(x, up)
        return self.linear(self.op.Mul(self.activation(opened, activation), raised), down)

    def add(self, hidden: ir.Value, x: ir.Value) -> ir.Value:
        """Record the sum of the residual stream, float32, and the output of a layer."""
        return self.op.Add(hidden, x)

    def layer_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """Record a layer normalisation of the last axis, with `.weight` and optionally `.bias`."""
        vectors = [self.vector(f"{name}.weight")]
        if f"{name}.bias" in self.weights.names:
            vectors.append(self.vector(f"{name}.bias"))
        return self.op.LayerNormalization(x, *vectors, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: ir.Value, name: str, epsilon: float, offset: float = 0.0) -> ir.Value:
        """Record a root-mean-square normalisation of the last axis, scaled by `.weight` plus an offset.

        ONNX Runtime fuses this order of nodes to SimplifiedLayerNormalization.
        """
        op = self.op
        mean_square = op.ReduceMean(op.Pow(x, 2.0), [-1], keepdims=1)
        normalized = op.Div(x, op.Sqrt(op.Add(mean_square, float(epsilon))))
        return op.Mul(normalized, self.vector(f"{name}.weight", offset))

    def activation(self, x: ir.Value, kind: str) -> ir.Value:
        """Record an activation by its name in `config.json`.

        Raises:
            ValueError: The activation is not supported.
        """
        if kind == "silu":
            return self.silu(x)
        if kind == "quick_gelu":
            factor = np.array(1.702, (x.dtype or ir.DataType.FLOAT).numpy())
            return self.op.Mul(x, self.op.Sigmoid(self.op.Mul(x, factor)))
        if kind not in _ACTIVATIONS:
            supported = ", ".join((*_ACTIVATIONS, "silu", "quick_gelu"))
            raise ValueError(f"activation {kind!r} is not supported (supported: {supported})")
        operator, attributes = _ACTIVATIONS[kind]
        return self.op.record(operator, [x], dict(attributes))[0]

    def silu(self, x: ir.Value) -> ir.Value:
        """Record the activation SiLU."""
        return self.op.Mul(x, self.op.Sigmoid(x))

    def normalize_heads(
        self, queries: ir.Value, keys: ir.Value, norms: HeadNorms, size: int
    ) -> tuple[ir.Value, ir.Value]:
        """Record the normalisation of each head of queries and keys, `(rows, heads * size)`."""

        def normalize(x: ir.Value, name: str) -> ir.Value:
            rows = self.rms_norm(self.op.Reshape(x, [-1, size]), name, norms.epsilon, norms.offset)
            return self.op.Reshape(rows, self.op.Shape(x))

        return normalize(queries, norms.query), normalize(keys, norms.key)

    def embedding(self, ids: ir.Value, name: str) -> ir.Value:
        """Look up the rows of the table `.weight` by id, `(rows, dims)` float32."""
        name = f"{name}.weight"
        dtype = ir.DataType.FLOAT if self.precision == "fp32" else ir.DataType.FLOAT16
        table = self.op.weight(name, lambda: self.weights.read(name), self.weights.shape(name), dtype)
        rows = self.op.Gather(table, ids)
        return rows if self.precision == "fp32" else self.op.Cast(rows, to=ir.DataType.FLOAT)

    def vector(self, name: str, offset: float = 0.0) -> ir.Value:
        """Return a tensor as it is stored, plus an offset, in float32 for every precision."""

        def read() -> Array:
            return self.weights.read(name) + np.float32(offset)

        return self.op.weight(name, read, self.weights.shape(name), ir.DataType.FLOAT)

    def multiply(self, x: ir.Value, matrix: ir.Value) -> ir.Value:
        """Record a matrix product in the type of matrix products, which is also that of its result."""
        return self.typed(self.op.MatMul(self.narrow(x), matrix))

    def narrow(self, x: ir.Value) -> ir.Value:
        """Cast rows to the type of matrix products, unless they are known to have it."""
        is_narrow = self.dtype in (ir.DataType.FLOAT, x.dtype)
        return x if is_narrow else self.typed(self.op.Cast(x, to=self.dtype))

    def widen(self, x: ir.Value) -> ir.Value:
        """Cast rows that are known to have another type to float32."""
        return self.op.Cast(x, to=ir.DataType.FLOAT) if x.dtype == ir.DataType.FLOAT16 else x

    def typed(self, x: ir.Value) -> ir.Value:
        """Note that a value has the type of matrix products, for the next layer to know."""
        x.dtype = self.dtype
        return x

    def sequences(self, batch: Batch) -> Sequences:
        """Record the layout of a batch, once for all layers that attend in the same way."""
        packing = pack(self.op, batch.lengths, batch.rows)
        blocks = cut_blocks(self.op, packing, batch.heads.query, batch.reach)
        rotation = None
        if batch.frequencies is not None:
            with self.op.scope("rotation"):
                rotation = record_rotation(self.op, packing.position, batch.frequencies)
        return BlockSequences(self, packing, batch.heads, blocks, rotation)

    def _stack(self, names: list[str]) -> Array:
        return np.concatenate([self.weights.read(name) for name in names])


@dataclass(frozen=True)
class BlockSequences:
    """Sequences cut into blocks of similar length, over whose groups a graph loops.

    Attributes:
        layers: The graph and the checkpoint.
        packing: The layout of the rows.
        heads: The division of rows into heads.
        blocks: The same rows cut into blocks.
        rotation: Angles by which queries and keys are rotated; None if they are not.
    """

    layers: Layers
    packing: Packing
    heads: Heads
    blocks: Blocks
    rotation: Rotation | None = None

    def attend(self, x: ir.Value, query: str, key: str, value: str, norms: HeadNorms | None = None) -> ir.Value:
        """Record the attention of each row to the rows that it reaches, as `Sequences` describes it."""
        op, heads = self.layers.op, self.heads
        projected = self.layers.linear(x, query, key, value)
        if self.rotation is None and norms is None:
            counts = (heads.query, heads.key_value, heads.key_value)
            query_heads, key_heads, value_heads = split_heads(op, projected, heads.size, *counts)
        else:
            widths = [(heads.query + heads.key_value) * heads.size, heads.key_value * heads.size]
            queries_and_keys, values = op.split(projected, widths)
            if norms is not None:
                queries, keys = op.split(queries_and_keys, [heads.query * heads.size, heads.key_value * heads.size])
                queries, keys = self.layers.normalize_heads(queries, keys, norms, heads.size)
                queries_and_keys = op.Concat(queries, keys, axis=-1)
            if self.rotation is not None:
                queries_and_keys = rotate(op, queries_and_keys, self.rotation, heads.size)
            query_heads, key_heads = split_heads(op, queries_and_keys, heads.size, heads.query, heads.key_value)
            [value_heads] = split_heads(op, values, heads.size, heads.key_value)
        return attend(op, query_heads, key_heads, value_heads, heads, self.blocks, self.layers.dtype)

    def pool(self, hidden: ir.Value, pooling: Pooling) -> ir.Value:
        """Reduce the rows of each sequence to one, as `Sequences` describes it."""
        return pool(self.layers.op, hidden, self.packing, self.blocks, pooling)
