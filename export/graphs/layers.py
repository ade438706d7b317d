"""The layers of transformers, bound to the tensors of a checkpoint."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from export.graphs.builder import GraphBuilder
from export.graphs.quantized import multiply_in_int8
from export.graphs.weights import Array, Weights

Precision = Literal["fp32", "fp16", "int8"]

# ONNX operator and attributes of each activation, by its name in config.json.
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


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
            product = self.widen(self.op.MatMul(self.narrow(x), matrix))
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

    def layer_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """Record a layer normalisation of the last axis, with `.weight` and `.bias`."""
        scale, bias = self.vector(f"{name}.weight"), self.vector(f"{name}.bias")
        return self.op.LayerNormalization(x, scale, bias, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """Record a root-mean-square normalisation of the last axis, with `.weight`.

        ONNX Runtime fuses this order of nodes to SimplifiedLayerNormalization.
        """
        op = self.op
        mean_square = op.ReduceMean(op.Pow(x, 2.0), [-1], keepdims=1)
        normalized = op.Div(x, op.Sqrt(op.Add(mean_square, float(epsilon))))
        return op.Mul(normalized, self.vector(f"{name}.weight"))

    def activation(self, x: ir.Value, kind: str) -> ir.Value:
        """Record an activation by its name in `config.json`.

        Raises:
            ValueError: The activation is not supported.
        """
        if kind not in _ACTIVATIONS:
            raise ValueError(f"activation {kind!r} is not supported (supported: {', '.join(_ACTIVATIONS)})")
        operator, attributes = _ACTIVATIONS[kind]
        return self.op.record(operator, [x], dict(attributes))[0]

    def embedding(self, ids: ir.Value, name: str) -> ir.Value:
        """Look up the rows of the table `.weight` by id, `(rows, dims)` float32."""
        name = f"{name}.weight"
        dtype = ir.DataType.FLOAT if self.precision == "fp32" else ir.DataType.FLOAT16
        table = self.op.weight(name, lambda: self.weights.read(name), self.weights.shape(name), dtype)
        rows = self.op.Gather(table, ids)
        return rows if self.precision == "fp32" else self.op.Cast(rows, to=ir.DataType.FLOAT)

    def vector(self, name: str) -> ir.Value:
        """Return a tensor as it is stored, in float32 for every precision."""
        return self.op.weight(name, lambda: self.weights.read(name), self.weights.shape(name), ir.DataType.FLOAT)

    def narrow(self, x: ir.Value) -> ir.Value:
        """Cast float32 to the type of matrix products."""
        return x if self.dtype == ir.DataType.FLOAT else self.op.Cast(x, to=self.dtype)

    def widen(self, x: ir.Value) -> ir.Value:
        """Cast the type of matrix products to float32."""
        return x if self.dtype == ir.DataType.FLOAT else self.op.Cast(x, to=ir.DataType.FLOAT)

    def _stack(self, names: list[str]) -> Array:
        return np.concatenate([self.weights.read(name) for name in names])
