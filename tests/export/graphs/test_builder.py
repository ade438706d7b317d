import numpy as np
import onnx_ir as ir
import pytest

from export.graphs.builder import GraphBuilder


def constant_of(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def producer_name(value: ir.Value) -> str:
    node = value.producer()
    assert node is not None and node.name is not None
    return node.name


def test_numbers_become_shared_constants_of_their_own_type():
    op = GraphBuilder()
    x = op.input("x", ir.DataType.INT64, ["rows"])
    y = op.input("y", ir.DataType.FLOAT, ["rows"])
    graph = op.build("graph", [op.Add(op.Mul(x, 3), 3), op.Add(op.Mul(y, 0.5), np.array(0.5, np.float32))])
    constants = [constant_of(value) for value in graph.initializers.values()]
    assert [(str(tensor.dtype), tensor.numpy().item()) for tensor in constants] == [("INT64", 3), ("FLOAT", 0.5)]


def test_weights_are_read_when_the_model_is_saved(tmp_path):
    reads = []

    def read() -> np.ndarray:
        reads.append("weight")
        return np.arange(200, dtype=np.float32).reshape(20, 10).T

    op = GraphBuilder()
    x = op.input("x", ir.DataType.FLOAT, ["rows", 10])
    model = ir.Model(
        op.build("graph", [op.MatMul(x, op.weight("w", read, [10, 20], ir.DataType.FLOAT16))]), ir_version=9
    )
    assert not reads
    ir.save(model, tmp_path / "model.onnx", external_data="model.data")
    assert reads
    written = constant_of(ir.load(tmp_path / "model.onnx").graph.initializers["w"])
    np.testing.assert_array_equal(written.numpy(), read().astype(np.float16))


def test_nodes_carry_their_scopes():
    op = GraphBuilder()
    x = op.input("x", ir.DataType.FLOAT, ["rows"])
    with op.scope("layer.0"), op.scope("mlp"):
        inner = op.Neg(x)
    outer = op.Neg(inner)
    assert producer_name(inner).startswith("layer.0/mlp/Neg")
    assert "/" not in producer_name(outer)


def test_misspelt_method_raises_attribute_error():
    with pytest.raises(AttributeError, match="scop"):
        GraphBuilder().scop("layer.0")
