"""What the form for CUDA gives to attention, which a CPU does not read."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from export.graphs.attention import Heads
from export.graphs.blocks import Reach
from export.graphs.builder import GraphBuilder
from export.graphs.cuda import OUT_OF_REACH, CudaLayers, order_padded_rows
from export.graphs.layers import Batch
from tests.export.array_weights import ArrayWeights


def offsets_by_numpy(lengths: list[int], columns: int) -> np.ndarray:
    """Return the places of rows, then those of padding, in sequences padded to so many columns."""
    places = np.arange(len(lengths) * columns).reshape(len(lengths), -1)
    is_row = np.arange(columns) < np.array(lengths)[:, None]
    return np.concatenate([places[is_row], places[~is_row]]).reshape(places.shape)


@pytest.mark.parametrize("lengths", [[1, 2, 4], [3], [0, 5, 0, 2, 0], [4, 4]])
@pytest.mark.parametrize("more", [0, 3])
def test_rows_and_then_padding_are_ordered(run_graph, lengths, more):
    columns = max(lengths) + more

    def record(op: GraphBuilder, counts: ir.Value) -> list[ir.Value]:
        return [order_padded_rows(op, counts, op.Cast(op.Range(0, columns, 1), to=ir.DataType.INT32))]

    [found] = run_graph(record, np.array(lengths, np.int32))
    np.testing.assert_array_equal(found, offsets_by_numpy(lengths, columns))


def test_the_example_of_onnx_runtime_is_ordered_as_it_says():
    """The documentation of `PackedAttention` has sequences of 1, 2 and 4 rows."""
    assert offsets_by_numpy([1, 2, 4], 4).ravel().tolist() == [0, 4, 5, 8, 9, 10, 11, 1, 2, 3, 6, 7]


@pytest.mark.parametrize(
    ("precision", "size", "is_ordered"), [("fp16", 8, False), ("fp16", 12, True), ("fp32", 8, True)]
)
def test_offsets_are_computed_where_a_kernel_may_read_them(run_graph, precision, size, is_ordered):
    lengths = [1, 2, 4]

    def record(op: GraphBuilder, lengths: ir.Value) -> list[ir.Value]:
        layers = CudaLayers(op, ArrayWeights({}), precision)
        sequences = layers.sequences(Batch(lengths, op.ReduceSum(lengths), Heads(2, 2, size)))
        return [op.Identity(sequences.cumulative), op.Identity(sequences.offsets)]

    cumulative, offsets = run_graph(record, np.array(lengths))
    assert cumulative.tolist() == [0, 1, 3, 7]
    assert (offsets.shape, offsets.dtype) == ((3, 16), np.int32)
    assert np.array_equal(offsets, offsets_by_numpy(lengths, 16)) == is_ordered


def test_sequences_that_reach_differently_share_their_columns(run_graph):
    def record(op: GraphBuilder, lengths: ir.Value) -> list[ir.Value]:
        layers = CudaLayers(op, ArrayWeights({}), "fp16")
        batch = Batch(lengths, op.ReduceSum(lengths), Heads(2, 2, 8))
        everywhere, nearby = layers.sequences(batch), layers.sequences(replace(batch, reach=Reach(2, 1)))
        assert everywhere.bias is None
        return [op.Identity(nearby.bias), op.Identity(everywhere.offsets), op.Identity(nearby.offsets)]

    bias, *offsets = run_graph(record, np.array([1, 2, 4]))
    assert [each.shape for each in (bias, *offsets)] == [(1, 1, 16, 16), (3, 16), (3, 16)]
    distance = np.arange(16) - np.arange(16)[:, None]
    np.testing.assert_array_equal(bias[0, 0] == 0, (distance >= -2) & (distance <= 1))
    assert np.isfinite(bias).all(), "a kernel may begin with keys of which it reaches none"
    assert bias.min() == OUT_OF_REACH
