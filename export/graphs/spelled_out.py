"""Graphs for GPUs with their own operators spelled out in plain ONNX, so that a CPU computes the same.

The definitions follow ONNX Runtime's `docs/ContribOperators.md`. Everything else in such a graph stays as it will run.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from export.graphs.attention import HeadRows, Heads, attend
from export.graphs.blocks import CAUSAL, EVERYTHING, Reach, cut_blocks
from export.graphs.builder import CONTRIB, TENSORRT, GraphBuilder
from export.graphs.packed import Packing, pack

Define = Callable[[GraphBuilder, ir.Node], ir.Value]

_BIAS = 6  # input of PackedMultiHeadAttention
_REACHES: Mapping[str, Reach] = {"none": EVERYTHING, "upper_left": CAUSAL}


def spell_out(model: ir.Model) -> ir.Model:
    """Replace the operators that only a GPU has kernels for, in place, and return the model.

    Each computes in float32, and its result has the type that the operator would give it.
    """
    for node in list(model.graph):
        if node.op_type not in _DEFINITIONS:
            continue
        define, typed_like = _DEFINITIONS[node.op_type]
        op = GraphBuilder()
        with op.scope(str(node.name)):
            op.replace(model.graph, node, op.CastLike(define(op, node), node.inputs[typed_like]))
    for domain in (CONTRIB, TENSORRT):
        model.graph.opset_imports.pop(domain, None)
    return model


def _operand(op: GraphBuilder, node: ir.Node, index: int) -> ir.Value:
    """Return an input in float32."""
    return op.Cast(node.inputs[index], to=ir.DataType.FLOAT)


def _simplified_layer_norm(op: GraphBuilder, node: ir.Node) -> ir.Value:
    x = _operand(op, node, 0)
    mean_square = op.ReduceMean(op.Mul(x, x), [-1], keepdims=1)
    normalized = op.Div(x, op.Sqrt(op.Add(mean_square, node.attributes["epsilon"].as_float())))
    return op.Mul(normalized, _operand(op, node, 1))


def _rotary_embedding(op: GraphBuilder, node: ir.Node) -> ir.Value:
    """Rotate `(1, rows, heads * head size)`; the two halves of a head hold the two coordinates of each pair."""
    x, position = _operand(op, node, 0), node.inputs[1]
    cosine, sine = (op.Unsqueeze(op.Gather(_operand(op, node, index), position), [2]) for index in (2, 3))
    size = op.Mul(op.Shape(node.inputs[2], start=1, end=2), 2)
    halves = op.Reshape(x, op.Concat([0, 0, -1], size, axis=0))
    first, second = op.record("Split", [halves], {"axis": -1, "num_outputs": 2}, outputs=2)
    turned_first = op.Sub(op.Mul(first, cosine), op.Mul(second, sine))
    turned_second = op.Add(op.Mul(second, cosine), op.Mul(first, sine))
    return op.Reshape(op.Concat(turned_first, turned_second, axis=-1), op.Shape(x))


def _quick_gelu(op: GraphBuilder, node: ir.Node) -> ir.Value:
    x = _operand(op, node, 0)
    return op.Mul(x, op.Sigmoid(op.Mul(x, node.attributes["alpha"].as_float())))


def _fast_gelu(op: GraphBuilder, node: ir.Node) -> ir.Value:
    return op.Gelu(op.Add(_operand(op, node, 0), _operand(op, node, 1)), approximate="tanh")


def _bias_gelu(op: GraphBuilder, node: ir.Node) -> ir.Value:
    return op.Gelu(op.Add(_operand(op, node, 0), _operand(op, node, 1)))


def _packed_multi_head_attention(op: GraphBuilder, node: ir.Node) -> ir.Value:
    """Attend within sequences of packed rows; the scale tells the size of heads."""
    query, key, value = (_operand(op, node, index) for index in range(3))
    count = node.attributes["num_heads"].as_int()
    heads = Heads(count, count, round(node.attributes["scale"].as_float() ** -2))
    if len(node.inputs) > _BIAS:
        return _attend_with_bias(op, query, key, value, heads, _operand(op, node, 5), _operand(op, node, _BIAS))
    return _attend(op, query, key, value, heads, _operand(op, node, 5))


def _trt_attention(op: GraphBuilder, node: ir.Node) -> ir.Value:
    """Attend within sequences of packed rows `(rows, heads, head size)`, whose queries are already scaled."""
    (_, count, size), (_, key_count, _) = (_shape(node, index) for index in (0, 1))
    query, key, value = (_operand(op, node, index) for index in range(3))
    unscaled = op.Mul(query, float(size**0.5))
    reach = _REACHES[node.attributes["causal_kind"].as_string()]
    attended = _attend(op, unscaled, key, value, Heads(count, key_count, size), _operand(op, node, 4), reach)
    return op.Reshape(attended, [-1, count, size])


def _shape(node: ir.Node, index: int) -> list[int]:
    """Return the shape of an input; sizes that are not known are -1."""
    value = node.inputs[index]
    shape = value.shape if value is not None else None
    return [size if isinstance(size, int) else -1 for size in shape or ()]


def _attend(
    op: GraphBuilder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    heads: Heads,
    boundaries: ir.Value,
    reach: Reach = EVERYTHING,
) -> ir.Value:
    """Attend as the graphs for CPUs do, within sequences that begin and end at `boundaries`."""
    queries = HeadRows(op.Reshape(query, [-1, heads.size]), heads.query)
    keys, values = (HeadRows(op.Reshape(x, [-1, heads.size]), heads.key_value) for x in (key, value))
    blocks = cut_blocks(op, _pack(op, query, boundaries), heads.query, reach)
    return attend(op, queries, keys, values, heads, blocks, ir.DataType.FLOAT)


def _attend_with_bias(
    op: GraphBuilder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    heads: Heads,
    boundaries: ir.Value,
    bias: ir.Value,
) -> ir.Value:
    """Attend from all rows to all, with the bias `(1, 1, columns, columns)` within a sequence and -inf elsewhere."""
    packing = _pack(op, query, boundaries)
    queries, keys, values = (
        op.Transpose(op.Reshape(x, [0, heads.query, heads.size]), perm=[1, 0, 2]) for x in (query, key, value)
    )
    scores = op.Mul(op.MatMul(queries, op.Transpose(keys, perm=[0, 2, 1])), float(heads.size**-0.5))
    rows, columns = op.Unsqueeze(packing.position, [1]), op.Unsqueeze(packing.position, [0])
    place = op.Add(op.Mul(rows, op.Shape(bias, start=3)), columns)
    is_same = op.Equal(op.Unsqueeze(packing.sequence, [1]), op.Unsqueeze(packing.sequence, [0]))
    biased = op.Add(scores, op.Gather(op.Reshape(bias, [-1]), place))
    weights = op.Softmax(op.Where(is_same, biased, float("-inf")), axis=-1)
    attended = op.Transpose(op.MatMul(weights, values), perm=[1, 0, 2])
    return op.Reshape(attended, [0, heads.query * heads.size])


def _pack(op: GraphBuilder, rows: ir.Value, boundaries: ir.Value) -> Packing:
    """Return the layout of sequences that begin and end at `boundaries`."""
    cumulative = op.Cast(boundaries, to=ir.DataType.INT64)
    lengths = op.Sub(op.Slice(cumulative, [1], [np.iinfo(np.int64).max]), op.Slice(cumulative, [0], [-1]))
    return pack(op, lengths, op.Shape(rows, start=0, end=1))


# Definition of each operator, and the input whose type its result has.
_DEFINITIONS: Mapping[str, tuple[Define, int]] = {
    "BiasGelu": (_bias_gelu, 0),
    "FastGelu": (_fast_gelu, 0),
    "PackedMultiHeadAttention": (_packed_multi_head_attention, 0),
    "QuickGelu": (_quick_gelu, 0),
    "RotaryEmbedding": (_rotary_embedding, 0),
    "SimplifiedLayerNormalization": (_simplified_layer_norm, 1),
    "TRT_Attention": (_trt_attention, 0),
}
