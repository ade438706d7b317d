import numpy as np
import onnx_ir as ir
import pytest

from export.graphs.builder import GraphBuilder
from export.graphs.packed import pack, pack_by_comparison


@pytest.mark.parametrize("derive", [pack, pack_by_comparison])
@pytest.mark.parametrize("lengths", [[1], [3, 2], [0, 3, 0, 0, 2, 0], [5, 0], [300, 1, 0, 700]])
def test_every_row_knows_its_sequence_and_position(lengths, derive, run_graph):
    def record(op: GraphBuilder, lengths: ir.Value) -> list[ir.Value]:
        packing = derive(op, lengths, op.ReduceSum(lengths, [0], keepdims=1))
        return [packing.starts, packing.sequence, packing.position]

    starts, sequence, position = run_graph(record, np.array(lengths))

    np.testing.assert_array_equal(starts, np.cumsum([0, *lengths[:-1]]))
    np.testing.assert_array_equal(sequence, np.repeat(np.arange(len(lengths)), lengths))
    np.testing.assert_array_equal(position, np.concatenate([np.arange(n) for n in lengths]))
