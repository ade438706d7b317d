"""A loop over groups of blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from export.graphs.blocks import QUERIES_PER_BLOCK, Blocks
from export.graphs.builder import GraphBuilder


@dataclass(frozen=True)
class Group:
    """The blocks of one group, as columns `(blocks, 1)` int64; see `Blocks`."""

    query_start: ir.Value
    query_count: ir.Value
    key_start: ir.Value
    key_count: ir.Value
    longest: ir.Value

    def query_rows(self, op: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """Return the rows of the queries, and a mask that is false for padding, both `(blocks, longest)`."""
        return _padded_rows(op, self.query_start, self.query_count, op.Min(self.longest, QUERIES_PER_BLOCK))

    def key_rows(self, op: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """Return the rows of the keys, and a mask that is false for padding, both `(blocks, longest)`."""
        return _padded_rows(op, self.key_start, self.key_count, self.longest)


def _padded_rows(op: GraphBuilder, start: ir.Value, count: ir.Value, width: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return row numbers, and which of them are not padding.

    Padding repeats the last row, so that other sequences are never read: they may hold NaN.
    """
    column = op.Range(0, width, 1)
    return op.Add(start, op.Min(column, op.Sub(count, 1))), op.Less(column, count)


def loop_over_groups(
    op: GraphBuilder, blocks: Blocks, dtype: ir.DataType, compute: Callable[[GraphBuilder, Group], ir.Value]
) -> ir.Value:
    """Return the results of all groups, concatenated along the first axis.

    Args:
        op: The graph.
        blocks: The batch cut into blocks.
        dtype: Type of the results.
        compute: Function that records the computation of one group in the body of the loop; it may use values of the
            surrounding graph.
    """
    body = op.subgraph()
    iteration = body.input("iteration", ir.DataType.INT64, [])
    condition = body.input("condition", ir.DataType.BOOL, [])
    begin = body.input("begin", ir.DataType.INT64, [1])
    results = body.sequence_input("results", dtype)
    end = body.Gather(blocks.group_ends, body.Unsqueeze(iteration, [0]))
    columns = (blocks.query_start, blocks.query_count, blocks.key_start, blocks.key_count)
    query_start, query_count, key_start, key_count = (body.Unsqueeze(body.Slice(x, begin, end), [1]) for x in columns)
    longest = body.ReduceMax(key_count, keepdims=0)
    result = compute(body, Group(query_start, query_count, key_start, key_count, longest))
    graph = body.build("group", [body.Identity(condition), end, body.SequenceInsert(results, result)])
    operands = [op.Size(blocks.group_ends), None, [0], op.SequenceEmpty(dtype=dtype)]
    _, all_results = op.record("Loop", operands, {"body": graph}, outputs=2)
    return op.ConcatFromSequence(all_results, axis=0)
