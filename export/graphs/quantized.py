"""Matrix products in 8-bit integers: weights quantized per output, activations per row while running.

A scale per row, rather than one for the whole tensor as `DynamicQuantizeLinear` gives, keeps each sequence's embedding
independent of what else is in the batch, and confines an outlier to its own token. The zero point is one number, for
ONNX Runtime takes no other: 128, or a low one after an activation that hardly goes below zero, whose values then
have steps of nearly half the size.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graphs.builder import GraphBuilder
from export.graphs.weights import Array

_LARGEST = 127  # step of a weight, of either sign
_MOST = 255  # step of an activation, unsigned: ONNX Runtime multiplies unsigned by signed fastest
_SMALLEST_SCALE = 1e-12  # for rows of zeros
_ANYWHERE = 128, _SMALLEST_SCALE  # the step that stands for zero, and the smallest scale
_AFTER = {
    "Gelu": (32, 0.1701 / 32),  # nothing lies below -0.16997, or -0.17004 by its tanh approximation
    "Relu": (0, _SMALLEST_SCALE),
}


def multiply_in_int8(
    op: GraphBuilder, x: ir.Value, name: str, read: Callable[[], Array], inputs: int, outputs: int
) -> ir.Value:
    """Multiplies rows by a matrix.

    Args:
        op: The graph.
        x: `(rows, inputs)` float32.
        name: Of the matrix.
        read: Gives it, `(outputs, inputs)`.
        inputs: Its columns.
        outputs: Its rows.

    Returns:
        `(rows, outputs)` float32.
    """
    matrix = op.weight(f"{name}.int8", lambda: _quantize(read()).T, [inputs, outputs], ir.DataType.INT8)
    matrix_scale = op.weight(f"{name}.scale", lambda: _scales(read()), [outputs], ir.DataType.FLOAT)
    row_scale, zero_point = _row_scale(op, x)
    row_scales = op.Squeeze(row_scale, [1])
    rows = op.QuantizeLinear(x, row_scales, op.Expand(zero_point, op.Shape(row_scales)), axis=0)
    products = op.Cast(op.MatMulInteger(rows, matrix, zero_point), to=ir.DataType.FLOAT)
    return op.Mul(op.Mul(products, op.Mul(_one(op, x), matrix_scale)), row_scale)


def _row_scale(op: GraphBuilder, x: ir.Value) -> tuple[ir.Value, NDArray[np.uint8]]:
    """Size of one step for each row, `(rows, 1)`, and the step that stands for zero."""
    producer = x.producer()
    activation = producer.op_type if producer else ""
    zero_point, smallest = _AFTER.get(activation, _ANYWHERE)
    largest = op.ReduceMax(x if activation in _AFTER else op.Abs(x), [1], keepdims=1)
    return op.Max(op.Div(largest, float(_MOST - zero_point)), smallest), np.array(zero_point, np.uint8)


def _one(op: GraphBuilder, x: ir.Value) -> ir.Value:
    """A factor of 1 that cannot be folded away.

    ONNX Runtime fuses integer products with their scale (MatMulIntegerToFloat) only where it is itself a product.
    """
    return op.Cast(op.GreaterOrEqual(op.Size(x), 0), to=ir.DataType.FLOAT)


def _scales(matrix: Array) -> Array:
    """Size of one step for each output, `(outputs,)`."""
    largest: Array = np.abs(matrix).max(axis=1)
    return np.maximum(largest / np.float32(_LARGEST), np.float32(_SMALLEST_SCALE))


def _quantize(matrix: Array) -> NDArray[np.int8]:
    """Steps, -127 to 127, of `(outputs, inputs)`."""
    return np.rint(matrix / _scales(matrix)[:, None]).astype(np.int8)
