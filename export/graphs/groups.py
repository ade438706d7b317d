"""Runs a computation over one group of blocks after the other."""

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
        """Rows of the queries and which of them are no padding, both `(blocks, most queries)`."""
        return _padded_rows(op, self.query_start, self.query_count, op.Min(self.longest, QUERIES_PER_BLOCK))

    def key_rows(self, op: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """Rows of the keys and which of them are no padding, both `(blocks, most keys)`."""
        return _padded_rows(op, self.key_start, self.key_count, self.longest)


def _padded_rows(op: GraphBuilder, start: ir.Value, count: ir.Value, width: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Padding repeats the last row: what stands in other sequences, NaN even, is never read."""
    column = op.Range(0, width, 1)
    return op.Add(start, op.Min(column, op.Sub(count, 1))), op.Less(column, count)


def loop_over_groups(
    op: GraphBuilder, blocks: Blocks, dtype: ir.DataType, compute: Callable[[GraphBuilder, Group], ir.Value]
) -> ir.Value:
    """Concatenates along the first axis what is computed of each group, in their order.

    Args:
        op: The graph.
        blocks: The batch cut into blocks.
        dtype: Type of the results.
        compute: Records the computation in the loop's body; it may use values of the graph around.
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
