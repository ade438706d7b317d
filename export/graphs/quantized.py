"""Matrix products in 8-bit integers: weights quantized per output, activations per row while running.

A scale per row, rather than one for the whole tensor as `DynamicQuantizeLinear` gives, keeps each sequence's embedding
independent of what else is in the batch, and confines an outlier to its own token.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.graphs.builder import GraphBuilder
from export.graphs.weights import Array

_LARGEST = 127  # of either sign
_ZERO_POINT = np.array(128, np.uint8)  # ONNX Runtime multiplies unsigned by signed fastest
_SMALLEST_SCALE = 1e-12  # for rows of zeros


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
    largest = op.ReduceMax(op.Abs(x), [1], keepdims=1)
    row_scale = op.Max(op.Div(largest, float(_LARGEST)), _SMALLEST_SCALE)
    row_scales = op.Squeeze(row_scale, [1])
    zero_points = op.Expand(_ZERO_POINT, op.Shape(row_scales))
    rows = op.QuantizeLinear(x, row_scales, zero_points, axis=0)
    products = op.Cast(op.MatMulInteger(rows, matrix, _ZERO_POINT), to=ir.DataType.FLOAT)
    return op.Mul(op.Mul(products, op.Mul(_one(op, x), matrix_scale)), row_scale)


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
