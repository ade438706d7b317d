"""Matrix products in 8-bit integers: weights are quantized per output, activations per row at run time.

A scale per row, where `DynamicQuantizeLinear` has one for the whole tensor, keeps each embedding independent of the
rest of the batch and confines an outlier to its token. ONNX Runtime requires a single zero point for all rows. It is
128, or less after an activation that is hardly ever negative, which nearly halves the size of a step.

A few columns of normalised rows are much larger than the others, and the step of a row follows them. So a graph is
built twice: `watch_columns` shows how large each column becomes over sample inputs, and `smooth_columns` divides the
columns by factors with which it multiplies the matrix (SmoothQuant, arXiv:2211.10438).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

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

# Operators at the end of a normalisation or of a gate. The columns of attended rows differ little, and those after an
# activation would lose their zero point.
_UNEVEN = frozenset({"LayerNormalization", "Mul"})
_SMOOTHING = "smoothing"  # key in the metadata of rows that can be smoothed
EVENNESS = 0.6  # 0 evens out the columns of the matrix alone, 1 those of the rows; measured: 0.4 to 0.7 hardly differ
_MIN_COLUMN = 1e-4  # of rows and of matrices, for columns that are hardly used


@dataclass
class _Smoothing:
    """Rows that can be smoothed: their first product, the stored matrices of all products, and the factors if known."""

    name: str
    matrices: list[Callable[[], Array]] = field(default_factory=list)
    factors: Array | None = None

    def smooth(self, matrix: Array) -> Array:
        """Return a matrix for rows whose columns are divided by the factors."""
        return matrix if self.factors is None else matrix * self.factors


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
    producer = x.producer()
    activation = producer.op_type if producer else ""
    if activation in _UNEVEN:
        x, read = _make_smoothable(op, x, name, read)
    matrix = op.weight(f"{name}.int8", lambda: _quantize(read()).T, [inputs, outputs], ir.DataType.INT8)
    matrix_scale = op.weight(f"{name}.scale", lambda: _scales(read()), [outputs], ir.DataType.FLOAT)
    row_scale, zero_point = _row_scale(op, x, activation)
    row_scales = op.Squeeze(row_scale, [1])
    rows = op.QuantizeLinear(x, row_scales, op.Expand(zero_point, op.Shape(row_scales)), axis=0)
    products = op.Cast(op.MatMulInteger(rows, matrix, zero_point), to=ir.DataType.FLOAT)
    return op.Mul(op.Mul(products, op.Mul(op.once("one", lambda: _one(op, x)), matrix_scale)), row_scale)


def _make_smoothable(
    op: GraphBuilder, x: ir.Value, name: str, read: Callable[[], Array]
) -> tuple[ir.Value, Callable[[], Array]]:
    """Return rows that all products of `x` share, and the function that returns the matrix for them."""

    def record() -> ir.Value:
        rows = op.Identity(x)
        rows.meta[_SMOOTHING] = _Smoothing(name)
        return rows

    rows = op.once(f"smoothable {x.name}", record)
    smoothing: _Smoothing = rows.meta[_SMOOTHING]
    smoothing.matrices.append(read)
    return rows, lambda: smoothing.smooth(read())


def watch_columns(model: ir.Model) -> None:
    """Add an output for all rows that can be smoothed: the largest magnitude of each column."""
    for node, smoothing in _smoothings(model):
        op = GraphBuilder()
        with op.scope(str(node.name)):
            rows = op.Identity(node.inputs[0])
            largest = op.ReduceMax(op.Abs(rows), [0], keepdims=0)
        op.replace(model.graph, node, rows)
        largest.name, largest.type = smoothing.name, ir.TensorType(ir.DataType.FLOAT)
        largest.shape = ir.Shape([None])
        model.graph.outputs.append(largest)


def smooth_columns(model: ir.Model, largest: Mapping[str, Array]) -> None:
    """Divide the columns of rows by factors, and multiply those of the matrices.

    Args:
        model: A graph that is not watched.
        largest: What the outputs of the watched graph returned, by name.
    """
    for node, smoothing in _smoothings(model):
        of_matrices = np.max([np.abs(read()).max(axis=0) for read in smoothing.matrices], axis=0)
        of_rows = np.maximum(largest[smoothing.name], _MIN_COLUMN)
        factors = of_rows**EVENNESS / np.maximum(of_matrices, _MIN_COLUMN) ** (1 - EVENNESS)
        smoothing.factors = factors / factors.mean()
        op = GraphBuilder()
        with op.scope(str(node.name)):
            op.replace(model.graph, node, op.Mul(node.inputs[0], 1 / smoothing.factors))


def _smoothings(model: ir.Model) -> Iterator[tuple[ir.Node, _Smoothing]]:
    """Yield each node that smoothing replaces."""
    for node in list(model.graph):
        if _SMOOTHING in node.outputs[0].meta:
            yield node, node.outputs[0].meta[_SMOOTHING]


def _row_scale(op: GraphBuilder, x: ir.Value, activation: str) -> tuple[ir.Value, NDArray[np.uint8]]:
    """Return the size of a step in each row, `(rows, 1)`, and the zero point."""
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
