"""Attention within each sequence of packed rows, in plain ONNX: one loop over groups of blocks."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graphs.blocks import EVERYTHING, Blocks, Reach
from export.graphs.builder import GraphBuilder
from export.graphs.groups import Group, loop_over_groups


@dataclass(frozen=True)
class Heads:
    """The division of a row into heads.

    Attributes:
        query: Number of query heads.
        key_value: Number of key and value heads; each serves `query / key_value` adjacent query heads.
        size: Components of one head.
    """

    query: int
    key_value: int
    size: int


@dataclass(frozen=True)
class HeadRows:
    """Heads of packed rows, with one row for each head.

    Attributes:
        heads: Heads of all rows, `(rows * per_row, head size)`.
        per_row: Number of heads that each packed row has in `heads`.
        first: Index of the first of them to use.
    """

    heads: ir.Value
    per_row: int
    first: int = 0

    def gather(self, op: GraphBuilder, rows: ir.Value, count: int) -> ir.Value:
        """Read the heads of some rows.

        Args:
            op: The graph.
            rows: Row numbers `(blocks, n)` int64.
            count: Number of heads to read of each row.

        Returns:
            Heads `(blocks, count, n, head size)`.
        """
        numbers = np.arange(self.first, self.first + count, dtype=np.int64)[:, None]
        return op.Gather(self.heads, op.Add(op.Unsqueeze(op.Mul(rows, self.per_row), [1]), numbers))


def split_heads(op: GraphBuilder, x: ir.Value, size: int, *counts: int) -> list[HeadRows]:
    """Split rows `(rows, sum of counts * size)` into groups of heads, without copying them."""
    heads = op.Reshape(x, [-1, size])
    return [HeadRows(heads, sum(counts), sum(counts[:index])) for index in range(len(counts))]


def attend(
    op: GraphBuilder, query: HeadRows, key: HeadRows, value: HeadRows, heads: Heads, blocks: Blocks, dtype: ir.DataType
) -> ir.Value:
    """Attend from every row to the rows of its sequence that it can reach, by scaled dot products.

    Only one group of blocks has its scores in memory at a time, and no sequence reads rows of another.

    Args:
        op: The graph.
        query: Query heads, float32.
        key: Key heads, float32.
        value: Value heads, float32.
        heads: The division into heads.
        blocks: The batch cut into blocks.
        dtype: Type of the matrix products; softmax is float32.

    Returns:
        Attended rows `(rows, heads.query * heads.size)` float32.
    """
    is_narrow = dtype != ir.DataType.FLOAT

    def narrow(op: GraphBuilder, x: ir.Value) -> ir.Value:
        return op.Cast(x, to=dtype) if is_narrow else x

    def attend_group(op: GraphBuilder, group: Group) -> ir.Value:
        query_rows, _ = group.query_rows(op)
        key_rows, is_key = group.key_rows(op)
        queries = op.Mul(query.gather(op, query_rows, heads.query), float(heads.size**-0.5))
        if heads.query != heads.key_value:  # query heads that share a key head, one after the other
            queries = op.Reshape(queries, [0, heads.key_value, -1, heads.size])
        keys = key.gather(op, key_rows, heads.key_value)
        values = value.gather(op, key_rows, heads.key_value)
        scores = op.MatMul(narrow(op, queries), op.Transpose(narrow(op, keys), perm=[0, 1, 3, 2]))
        if is_narrow:
            scores = op.Cast(scores, to=ir.DataType.FLOAT)
        if blocks.reach != EVERYTHING:
            distance = op.Sub(op.Unsqueeze(key_rows, [1]), op.Unsqueeze(query_rows, [2]))
            reached = is_reached(op, distance, op.Unsqueeze(is_key, [1]), blocks.reach)
            weights = _softmax_of_reached(op, scores, reached, heads.query)
        else:
            weights = op.branch(
                op.Less(op.ReduceMin(group.key_count, keepdims=0), group.longest),
                then=lambda op: op.Softmax(_mask_padding(op, scores, is_key), axis=-1),
                otherwise=lambda op: op.Softmax(scores, axis=-1),
            )
        return op.Reshape(op.MatMul(narrow(op, weights), narrow(op, values)), [-1, heads.size])

    padded = loop_over_groups(op, blocks, dtype, attend_group)
    attended = op.Reshape(op.Gather(padded, blocks.output_head), [0, heads.query * heads.size])
    attended.shape = ir.Shape([None, heads.query * heads.size])  # not inferred through a sequence
    attended.dtype = dtype
    return op.Cast(attended, to=ir.DataType.FLOAT) if is_narrow else attended


def _mask_padding(op: GraphBuilder, scores: ir.Value, is_key: ir.Value) -> ir.Value:
    """Give padding keys a score of -inf.

    Over long sequences, which are never padded, this would cost as much as the softmax; hence the branch around it.
    """
    return op.Add(scores, op.Unsqueeze(op.Where(is_key, 0.0, float("-inf")), [1, 2]))


def is_reached(op: GraphBuilder, distance: ir.Value, is_key: ir.Value, reach: Reach) -> ir.Value:
    """Return which keys each query attends to, bool.

    Args:
        op: The graph.
        distance: Place of each key less that of each query, int64.
        is_key: Mask of the keys that can be reached at all, in a shape that broadcasts.
        reach: How far queries attend.
    """
    if reach.after is not None:
        is_key = op.And(is_key, op.LessOrEqual(distance, reach.after))
    if reach.before is not None:
        is_key = op.And(is_key, op.GreaterOrEqual(distance, -reach.before))
    return is_key


def _softmax_of_reached(op: GraphBuilder, scores: ir.Value, is_reached: ir.Value, heads: int) -> ir.Value:
    """Return attention weights over the keys that are reached.

    Args:
        op: The graph.
        scores: Scores `(blocks, key heads, query heads of each * queries, keys)`.
        is_reached: Mask `(blocks, queries, keys)`.
        heads: Number of query heads.

    Returns:
        Weights, as `scores`.
    """
    by_head = op.Reshape(scores, op.Concat([0, heads, -1], op.Shape(scores, start=3, end=4), axis=0))
    masked = op.Add(by_head, op.Unsqueeze(op.Where(is_reached, 0.0, float("-inf")), [1]))
    return op.Reshape(op.Softmax(masked, axis=-1), op.Shape(scores))
