"""Matrix products in 8-bit integers: weights are quantized per output, activations per row at run time.

A scale per row, where `DynamicQuantizeLinear` has one for the whole tensor, keeps each embedding independent of the
rest of the batch and confines an outlier to its token. ONNX Runtime requires a single zero point for all rows. It is
128, or less after an activation that is hardly ever negative, which nearly halves the size of a step.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graphs.builder import GraphBuilder
from export.graphs.weights import Array

MAX_WEIGHT = 127  # signed and symmetric
MAX_ACTIVATION = 255  # unsigned: ONNX Runtime is fastest at unsigned activations times signed weights
MIN_SCALE = 1e-12  # for rows of zeros

# Zero point and minimum scale of an activation, by the operator that produced it. Gelu is never below -0.16997, or
# -0.17004 in its tanh approximation.
_DEFAULT_ZERO_POINT = (128, MIN_SCALE)
_ZERO_POINTS = {"Gelu": (32, 0.1701 / 32), "Relu": (0, MIN_SCALE)}


def multiply_in_int8(
    op: GraphBuilder, x: ir.Value, name: str, read: Callable[[], Array], inputs: int, outputs: int
) -> ir.Value:
    """Multiply rows by a matrix.

    Args:
        op: The graph.
        x: Rows `(rows, inputs)` float32.
        name: Name of the matrix.
        read: Function that returns the matrix `(outputs, inputs)`.
        inputs: Columns of the matrix.
        outputs: Rows of the matrix.

    Returns:
        Products `(rows, outputs)` float32.
    """
    matrix = op.weight(f"{name}.int8", lambda: _quantize(read()).T, [inputs, outputs], ir.DataType.INT8)
    matrix_scale = op.weight(f"{name}.scale", lambda: _scales(read()), [outputs], ir.DataType.FLOAT)
    row_scale, zero_point = _row_scale(op, x)
    row_scales = op.Squeeze(row_scale, [1])
    rows = op.QuantizeLinear(x, row_scales, op.Expand(zero_point, op.Shape(row_scales)), axis=0)
    products = op.Cast(op.MatMulInteger(rows, matrix, zero_point), to=ir.DataType.FLOAT)
    return op.Mul(op.Mul(products, op.Mul(_one(op, x), matrix_scale)), row_scale)


def _row_scale(op: GraphBuilder, x: ir.Value) -> tuple[ir.Value, NDArray[np.uint8]]:
    """Return the size of a step in each row, `(rows, 1)`, and the zero point."""
    producer = x.producer()
    activation = producer.op_type if producer else ""
    zero_point, min_scale = _ZERO_POINTS.get(activation, _DEFAULT_ZERO_POINT)
    largest = op.ReduceMax(x if activation in _ZERO_POINTS else op.Abs(x), [1], keepdims=1)
    return op.Max(op.Div(largest, float(MAX_ACTIVATION - zero_point)), min_scale), np.array(zero_point, np.uint8)


def _one(op: GraphBuilder, x: ir.Value) -> ir.Value:
    """Return a factor of 1 that cannot be folded away.

    ONNX Runtime fuses an integer product with its scale (MatMulIntegerToFloat) only if the scale is a product.
    """
    return op.Cast(op.GreaterOrEqual(op.Size(x), 0), to=ir.DataType.FLOAT)


def _scales(matrix: Array) -> Array:
    """Return the size of a step for each output, `(outputs,)`."""
    largest: Array = np.abs(matrix).max(axis=1)
    return np.maximum(largest / np.float32(MAX_WEIGHT), np.float32(MIN_SCALE))


def _quantize(matrix: Array) -> NDArray[np.int8]:
    """Return the matrix `(outputs, inputs)` in steps from -127 to 127."""
    return np.rint(matrix / _scales(matrix)[:, None]).astype(np.int8)
