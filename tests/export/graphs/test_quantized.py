from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from export.graphs.builder import IR_VERSION, GraphBuilder
from export.graphs.quantized import multiply_in_int8, smooth_columns, watch_columns

INPUTS, OUTPUTS = 96, 64
IDENTITY = np.eye(OUTPUTS, INPUTS, dtype=np.float32)  # exact in int8

Activate = Callable[[GraphBuilder, ir.Value], ir.Value]
ACTIVATIONS: dict[str, Activate] = {
    "gelu": lambda op, x: op.Gelu(x),
    "gelu by tanh": lambda op, x: op.Gelu(x, approximate="tanh"),
    "relu": lambda op, x: op.Relu(x),
}


@pytest.fixture
def matrix() -> np.ndarray:
    random = np.random.default_rng(0)
    sizes = np.geomspace(0.01, 100, OUTPUTS)[:, None]  # outputs of very different magnitude
    return (random.standard_normal((OUTPUTS, INPUTS)) * sizes).astype(np.float32)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((20, INPUTS)).astype(np.float32)


def multiply(run_graph, matrix: np.ndarray, rows: np.ndarray, activate: Activate | None = None) -> np.ndarray:
    def record(op: GraphBuilder, x: ir.Value) -> list[ir.Value]:
        operand = activate(op, x) if activate else x
        return [multiply_in_int8(op, operand, "matrix", lambda: matrix, INPUTS, OUTPUTS)]

    return run_graph(record, rows)[0]


def test_products_are_close_for_small_outputs_too(run_graph, matrix, rows):
    exact = rows @ matrix.T
    errors = np.abs(multiply(run_graph, matrix, rows) - exact).max(axis=0) / exact.std(axis=0)
    assert 0 < errors.max() < 0.05


@pytest.mark.parametrize("activate", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("size", [1.0, 3.0, 30.0])
def test_rows_after_an_activation_have_finer_steps(run_graph, rows, activate, size):
    [activated] = run_graph(lambda op, x: [activate(op, x)], rows * size)
    of_activation = multiply(run_graph, IDENTITY, rows * size, activate) - activated[:, :OUTPUTS]
    of_anything = multiply(run_graph, IDENTITY, activated) - activated[:, :OUTPUTS]
    assert 0 < np.abs(of_activation).mean() < 0.7 * np.abs(of_anything).mean()


@pytest.mark.parametrize("activate", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_no_value_of_an_activation_is_clipped(run_graph, activate):
    rows = np.linspace(-3, 3, 6001, dtype=np.float32)[:, None].repeat(INPUTS, axis=1)
    [activated] = run_graph(lambda op, x: [activate(op, x)], rows)
    step = np.maximum(activated.max(axis=1, keepdims=True) / 223, 0.1701 / 32)
    assert np.all(np.abs(multiply(run_graph, IDENTITY, rows, activate) - activated[:, :OUTPUTS]) <= 0.501 * step)


def test_a_row_does_not_depend_on_the_others(run_graph, matrix, rows):
    together = multiply(run_graph, matrix, rows)
    among_outliers = multiply(run_graph, matrix, np.concatenate([rows * 1000, rows, np.full_like(rows, np.nan)]))
    np.testing.assert_allclose(among_outliers[20:40], together, rtol=1e-6)


def test_rows_and_matrices_of_zeros_give_zeros(run_graph, matrix, rows):
    np.testing.assert_array_equal(multiply(run_graph, matrix, rows * 0), np.zeros((20, OUTPUTS)))
    np.testing.assert_array_equal(multiply(run_graph, matrix * 0, rows), np.zeros((20, OUTPUTS)))


def test_onnx_runtime_fuses_the_product_with_its_scales(matrix, tmp_path: Path):
    op = GraphBuilder()
    x = op.input("x", ir.DataType.FLOAT, ["rows", INPUTS])
    graph = op.build("graph", [multiply_in_int8(op, x, "matrix", lambda: matrix, INPUTS, OUTPUTS)])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # hide the warning that the file fits only this machine
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "MatMulIntegerToFloat" in operators and "MatMulInteger" not in operators


def make_normalised(matrix: np.ndarray) -> ir.Model:
    """A product over normalised rows, whose scale makes a few columns larger than the others."""
    op = GraphBuilder()
    x = op.input("x", ir.DataType.FLOAT, ["rows", INPUTS])
    scale = np.ones(INPUTS, np.float32)
    scale[[3, 40]] = 30
    normalised = op.LayerNormalization(x, scale, axis=-1, epsilon=1e-6)
    product = multiply_in_int8(op, normalised, "matrix", lambda: matrix, INPUTS, OUTPUTS)
    for name, value in (("normalised", normalised), ("product", product)):
        value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, None])
    return ir.Model(op.build("graph", [normalised, product]), ir_version=IR_VERSION)


def run_model(model: ir.Model, rows: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, {"x": rows}), strict=True))


def test_smoothed_columns_give_closer_products(matrix, rows):
    watched = make_normalised(matrix)
    watch_columns(watched)
    plain = run_model(watched, rows)
    np.testing.assert_array_equal(plain["matrix"], np.abs(plain["normalised"]).max(axis=0))

    smoothed = make_normalised(matrix)
    smooth_columns(smoothed, {"matrix": plain["matrix"]})
    exact = plain["normalised"] @ matrix.T
    errors = [np.abs(found - exact).mean() for found in (run_model(smoothed, rows)["product"], plain["product"])]
    assert 0 < errors[0] < 0.5 * errors[1]


def test_products_of_the_same_rows_share_their_factors(matrix, rows):
    op = GraphBuilder()
    x = op.input("x", ir.DataType.FLOAT, ["rows", INPUTS])
    normalised = op.LayerNormalization(x, np.ones(INPUTS, np.float32), axis=-1, epsilon=1e-6)
    once = multiply_in_int8(op, normalised, "once", lambda: matrix, INPUTS, OUTPUTS)
    twice = multiply_in_int8(op, normalised, "twice", lambda: 2 * matrix, INPUTS, OUTPUTS)
    difference = op.Sub(op.Mul(once, 2.0), twice)
    difference.name, difference.type = "difference", ir.TensorType(ir.DataType.FLOAT)
    model = ir.Model(op.build("graph", [difference]), ir_version=IR_VERSION)
    smooth_columns(model, {"once": np.arange(1, INPUTS + 1, dtype=np.float32)})
    np.testing.assert_allclose(run_model(model, rows)["difference"], 0, atol=1e-4 * np.abs(matrix).max())


def test_columns_that_are_never_used_do_no_harm(matrix, rows):
    matrix = matrix.copy()
    matrix[:, 7] = 0
    model = make_normalised(matrix)
    smooth_columns(model, {"matrix": np.where(np.arange(INPUTS) < 5, 0, 1).astype(np.float32)})
    assert np.isfinite(run_model(model, rows)["product"]).all()
