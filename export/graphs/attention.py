"""Attention within each sequence of packed rows, in plain ONNX: one loop over groups of blocks."""

from dataclasses import dataclass

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


def attend(
    op: GraphBuilder, query: ir.Value, key: ir.Value, value: ir.Value, heads: Heads, blocks: Blocks, dtype: ir.DataType
) -> ir.Value:
    """Bidirectional scaled dot-product attention of every row to all rows of its sequence.

    Scores exist for one group of blocks at a time, and no sequence reads rows of another.

    Args:
        op: The graph.
        query: `(rows, heads.query * heads.size)` float32.
        key: `(rows, heads.key_value * heads.size)` float32.
        value: As `key`.
        heads: The division into heads.
        blocks: The batch cut into blocks.
        dtype: Type of the matrix products; softmax is float32.

    Returns:
        As `query`.
    """
    query = op.Mul(query, float(heads.size**-0.5))
    is_narrow = dtype != ir.DataType.FLOAT
    if is_narrow:
        query, key, value = (op.Cast(x, to=dtype) for x in (query, key, value))

    def attend_group(op: GraphBuilder, group: Group) -> ir.Value:
        query_rows, _ = group.query_rows(op)
        key_rows, is_key = group.key_rows(op)
        queries = _split_query_heads(op, op.Gather(query, query_rows), heads)
        keys = op.Transpose(_split_heads(op, op.Gather(key, key_rows), heads), perm=[0, 2, 3, 1])
        values = op.Transpose(_split_heads(op, op.Gather(value, key_rows), heads), perm=[0, 2, 1, 3])
        scores = op.MatMul(queries, keys)
        if is_narrow:
            scores = op.Cast(scores, to=ir.DataType.FLOAT)
        weights = op.branch(
            op.Less(op.ReduceMin(group.key_count, keepdims=0), group.longest),
            then=lambda op: op.Softmax(_mask_padding(op, scores, is_key), axis=-1),
            otherwise=lambda op: op.Softmax(scores, axis=-1),
        )
        if is_narrow:
            weights = op.Cast(weights, to=dtype)
        return _merge_query_heads(op, op.MatMul(weights, values), heads)

    padded = loop_over_groups(op, blocks, dtype, attend_group)
    attended = op.Gather(padded, blocks.output_row)
    attended.shape = ir.Shape([None, heads.query * heads.size])  # which cannot be inferred through a sequence
    attended.dtype = dtype
    return op.Cast(attended, to=ir.DataType.FLOAT) if is_narrow else attended


def _mask_padding(op: GraphBuilder, scores: ir.Value, is_key: ir.Value) -> ir.Value:
    """Worth a branch around it: over long sequences, which are never padded, it would cost as much as the softmax."""
    return op.Add(scores, op.Unsqueeze(op.Where(is_key, 0.0, float("-inf")), [1, 2]))


def _split_heads(op: GraphBuilder, x: ir.Value, heads: Heads) -> ir.Value:
    """`(blocks, keys, components)` to `(blocks, keys, key-value heads, head size)`."""
    return op.Reshape(x, [0, 0, heads.key_value, heads.size])


def _split_query_heads(op: GraphBuilder, x: ir.Value, heads: Heads) -> ir.Value:
    """`(blocks, queries, components)` to `(blocks, key-value heads, queries of all heads served, head size)`."""
    if heads.query == heads.key_value:
        return op.Transpose(_split_heads(op, x, heads), perm=[0, 2, 1, 3])
    served = op.Reshape(x, [0, 0, heads.key_value, heads.query // heads.key_value, heads.size])
    return op.Reshape(op.Transpose(served, perm=[0, 2, 3, 1, 4]), [0, 0, -1, heads.size])


def _merge_query_heads(op: GraphBuilder, x: ir.Value, heads: Heads) -> ir.Value:
    """Inverse of `_split_query_heads`, as `(blocks * queries, components)`."""
    if heads.query == heads.key_value:
        rows = op.Transpose(x, perm=[0, 2, 1, 3])
    else:
        served = op.Reshape(x, [0, heads.key_value, heads.query // heads.key_value, -1, heads.size])
        rows = op.Transpose(served, perm=[0, 3, 1, 2, 4])
    return op.Reshape(rows, [-1, heads.query * heads.size])
