"""The definitions of GPU operators, against ONNX Runtime's own kernels where it has some for CPUs."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from export.graphs.attention import Heads
from export.graphs.builder import CONTRIB, IR_VERSION, GraphBuilder
from export.graphs.spelled_out import spell_out
from tests.export.graphs.test_attention import LENGTHS, attention_by_numpy, random_rows

ROWS, WIDTH, HEAD_SIZE = 7, 24, 8


def draw(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 2).astype(np.float32)


def build(op_type: str, operands: list[np.ndarray], attributes: dict, domain: str = CONTRIB) -> ir.Model:
    """Return a graph of one node with inputs of these types."""
    op = GraphBuilder()
    inputs = [op.input(f"x{i}", ir.DataType.from_numpy(x.dtype), list(x.shape)) for i, x in enumerate(operands)]
    [result] = op.record(op_type, inputs, attributes, domain=domain)
    return ir.Model(op.build("graph", [op.Identity(result)]), ir_version=IR_VERSION)


def run(model: ir.Model, operands: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"x{i}": x for i, x in enumerate(operands)})[0]


ANGLES = np.outer(np.arange(20), [1.0, 0.3, 0.1, 0.02])
OPERATORS = {
    "BiasGelu": ([draw(ROWS, WIDTH), draw(WIDTH)], {}, CONTRIB),
    "FastGelu": ([draw(ROWS, WIDTH), draw(WIDTH)], {}, CONTRIB),
    "QuickGelu": ([draw(ROWS, WIDTH)], {"alpha": 1.0}, CONTRIB),
    "RotaryEmbedding": (
        [
            draw(1, ROWS, WIDTH), np.array([[0, 1, 2, 0, 19, 3, 7]]),
            np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32),
        ], {}, CONTRIB,
    ),
    "SimplifiedLayerNormalization": (
        [draw(ROWS, WIDTH), draw(WIDTH)], {"axis": -1, "epsilon": 1e-5, "stash_type": 1}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("op_type", OPERATORS)
def test_definition_equals_the_kernel(op_type):
    operands, attributes, domain = OPERATORS[op_type]
    expected = run(build(op_type, operands, attributes, domain), operands)
    model = spell_out(build(op_type, operands, attributes, domain))
    assert op_type not in {node.op_type for node in model.graph}
    np.testing.assert_allclose(run(model, operands), expected, atol=2e-6)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_result_in_half_precision_has_the_type_of_the_operator(op_type):
    operands, attributes, domain = OPERATORS[op_type]
    expected = run(build(op_type, operands, attributes, domain), operands)
    first = 1 if op_type == "SimplifiedLayerNormalization" else 0  # whose rows stay float32
    halves = [x.astype(np.float16) if i >= first and x.dtype == np.float32 else x for i, x in enumerate(operands)]
    result = run(spell_out(build(op_type, halves, attributes, domain)), halves)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, expected, atol=2e-2)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_packed_attention_equals_the_textbook_formula(lengths):
    heads = Heads(3, 3, HEAD_SIZE)
    rows = random_rows(lengths, heads)
    offsets = np.zeros((len(lengths), max(lengths)), np.int32)
    operands = [*rows, np.zeros(0, np.float32), offsets, np.cumsum([0, *lengths]).astype(np.int32)]
    attributes = {"num_heads": heads.query, "scale": HEAD_SIZE**-0.5}
    found = run(spell_out(build("PackedMultiHeadAttention", operands, attributes)), operands)
    np.testing.assert_allclose(found, attention_by_numpy(*rows, lengths, heads), atol=2e-6)
