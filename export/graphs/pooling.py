"""Pooling of the hidden states of each sequence to one embedding."""

from typing import Literal

import numpy as np
import onnx_ir as ir

from export.graphs.blocks import Blocks
from export.graphs.builder import GraphBuilder
from export.graphs.groups import Group, loop_over_groups
from export.graphs.packed import Packing

Pooling = Literal["mean", "cls", "max", "last"]

NORM_FLOOR = 1e-12  # as in torch.nn.functional.normalize: a zero vector stays zero


def pool(op: GraphBuilder, hidden: ir.Value, packing: Packing, blocks: Blocks, pooling: Pooling) -> ir.Value:
    """Reduce the rows of each sequence to one.

    Args:
        op: The graph.
        hidden: Hidden states `(rows, dims)` float32.
        packing: The layout of the rows.
        blocks: The same rows cut into blocks.
        pooling: `mean`, `max`, `cls` for the first row, or `last` for the last one.

    Returns:
        Pooled rows `(sequences, dims)` float32; NaN for a sequence without rows.
    """
    if pooling == "cls":
        last_row = op.Sub(op.Shape(hidden, start=0, end=1), 1)
        pooled = op.Gather(hidden, op.Min(packing.starts, last_row))
    elif pooling == "last":
        pooled = op.Gather(hidden, op.Max(op.Sub(op.Add(packing.starts, packing.lengths), 1), 0))
    elif pooling == "max":
        pooled = _reduce(op, hidden, packing, blocks, "ReduceMax", float("-inf"), "max")
    else:
        lengths = op.Unsqueeze(op.Cast(packing.lengths, to=ir.DataType.FLOAT), [1])
        pooled = op.Div(_reduce(op, hidden, packing, blocks, "ReduceSum", 0.0, "add"), lengths)
    is_present = op.Unsqueeze(op.Greater(packing.lengths, 0), [1])
    return op.Where(is_present, pooled, float("nan"))


def _reduce(
    op: GraphBuilder,
    hidden: ir.Value,
    packing: Packing,
    blocks: Blocks,
    reduce_operator: str,
    neutral: float,
    scatter_reduction: str,
) -> ir.Value:
    """Reduce each block over its rows, then the blocks of each sequence: `(sequences, dims)`.

    The second reduction is ScatterElements because threads of ONNX Runtime's faster ScatterND overwrite each other's
    sums.
    """

    def reduce_group(op: GraphBuilder, group: Group) -> ir.Value:
        rows, is_row = group.query_rows(op)
        kept = op.Where(op.Unsqueeze(is_row, [2]), op.Gather(hidden, rows), neutral)
        return op.record(reduce_operator, [kept, [1]], {"keepdims": 0})[0]

    partial = loop_over_groups(op, blocks, ir.DataType.FLOAT, reduce_group)
    shape = op.Concat(op.Shape(packing.lengths), op.Shape(hidden, start=1, end=2), axis=0)
    target = op.ConstantOfShape(shape, value=ir.tensor(np.array([neutral], np.float32)))
    sequence = op.Expand(op.Unsqueeze(blocks.sequence, [1]), op.Shape(partial))
    return op.ScatterElements(target, sequence, partial, axis=0, reduction=scatter_reduction)


def normalize_rows(op: GraphBuilder, x: ir.Value) -> ir.Value:
    """Scale each row of `(rows, dims)` to an L2 norm of 1."""
    norm = op.ReduceL2(x, [1], keepdims=1)
    return op.Div(x, op.Max(norm, NORM_FLOOR))
