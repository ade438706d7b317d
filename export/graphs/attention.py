"""Attention within each sequence of packed rows, in plain ONNX: one loop over groups of blocks."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graphs.blocks import Blocks
from export.graphs.builder import GraphBuilder
from export.graphs.groups import Group, loop_over_groups


@dataclass(frozen=True)
class Heads:
    """How a row divides into heads.

    Attributes:
        query: Heads of the queries.
        key_value: Heads of keys and values; each serves `query / key_value` neighbouring query heads.
        size: Components of one head.
    """

    query: int
    key_value: int
    size: int


@dataclass(frozen=True)
class HeadRows:
    """Heads of packed rows, each head a row of its own.

    Attributes:
        heads: `(rows * per_row, head size)`.
        per_row: Heads that a packed row has in `heads`.
        first: The first of them that counts.
    """

    heads: ir.Value
    per_row: int
    first: int = 0

    def gather(self, op: GraphBuilder, rows: ir.Value, count: int) -> ir.Value:
        """Reads some rows.

        Args:
            op: The graph.
            rows: `(blocks, n)` int64.
            count: How many heads of a row.

        Returns:
            `(blocks, count, n, head size)`.
        """
        numbers = np.arange(self.first, self.first + count, dtype=np.int64)[:, None]
        return op.Gather(self.heads, op.Add(op.Unsqueeze(op.Mul(rows, self.per_row), [1]), numbers))


def split_heads(op: GraphBuilder, x: ir.Value, size: int, *counts: int) -> list[HeadRows]:
    """Tells apart what stands side by side in rows `(rows, sum of counts * size)`, without moving it."""
    heads = op.Reshape(x, [-1, size])
    return [HeadRows(heads, sum(counts), sum(counts[:index])) for index in range(len(counts))]


def attend(
    op: GraphBuilder, query: HeadRows, key: HeadRows, value: HeadRows, heads: Heads, blocks: Blocks, dtype: ir.DataType
) -> ir.Value:
    """Bidirectional scaled dot-product attention of every row to all rows of its sequence.

    Scores exist for one group of blocks at a time, and no sequence reads rows of another.

    Args:
        op: The graph.
        query: float32, `heads.query` of them.
        key: float32, `heads.key_value` of them.
        value: As `key`.
        heads: The division into heads.
        blocks: The batch cut into blocks.
        dtype: Type of the matrix products; softmax is float32.

    Returns:
        `(rows, heads.query * heads.size)` float32.
    """
    is_narrow = dtype != ir.DataType.FLOAT

    def narrow(op: GraphBuilder, x: ir.Value) -> ir.Value:
        return op.Cast(x, to=dtype) if is_narrow else x

    def attend_group(op: GraphBuilder, group: Group) -> ir.Value:
        query_rows, _ = group.query_rows(op)
        key_rows, is_key = group.key_rows(op)
        queries = op.Mul(query.gather(op, query_rows, heads.query), float(heads.size**-0.5))
        if heads.query != heads.key_value:  # those that share a key, one after the other
            queries = op.Reshape(queries, [0, heads.key_value, -1, heads.size])
        keys = key.gather(op, key_rows, heads.key_value)
        values = value.gather(op, key_rows, heads.key_value)
        scores = op.MatMul(narrow(op, queries), op.Transpose(narrow(op, keys), perm=[0, 1, 3, 2]))
        if is_narrow:
            scores = op.Cast(scores, to=ir.DataType.FLOAT)
        weights = op.branch(
            op.Less(op.ReduceMin(group.key_count, keepdims=0), group.longest),
            then=lambda op: op.Softmax(_mask_padding(op, scores, is_key), axis=-1),
            otherwise=lambda op: op.Softmax(scores, axis=-1),
        )
        return op.Reshape(op.MatMul(narrow(op, weights), narrow(op, values)), [-1, heads.size])

    padded = loop_over_groups(op, blocks, dtype, attend_group)
    attended = op.Reshape(op.Gather(padded, blocks.output_head), [0, heads.query * heads.size])
    attended.shape = ir.Shape([None, heads.query * heads.size])  # which cannot be inferred through a sequence
    attended.dtype = dtype
    return op.Cast(attended, to=ir.DataType.FLOAT) if is_narrow else attended


def _mask_padding(op: GraphBuilder, scores: ir.Value, is_key: ir.Value) -> ir.Value:
    """Worth a branch around it: over long sequences, which are never padded, it would cost as much as the softmax."""
    return op.Add(scores, op.Unsqueeze(op.Where(is_key, 0.0, float("-inf")), [1, 2]))
