"""Which row belongs to which sequence, in time linear in the rows."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graphs.builder import GraphBuilder


@dataclass(frozen=True)
class Packing:
    """How sequences stand in packed rows; all int64.

    Attributes:
        lengths: `(sequences,)` rows of each sequence; zeros are allowed.
        starts: `(sequences,)` first row of each sequence.
        sequence: `(rows,)` the sequence of each row.
        position: `(rows,)` the place of each row in its sequence, from 0.
    """

    lengths: ir.Value
    starts: ir.Value
    sequence: ir.Value
    position: ir.Value


def pack(op: GraphBuilder, lengths: ir.Value, rows: ir.Value) -> Packing:
    """Derives the packing from the lengths.

    Args:
        op: The graph.
        lengths: `(sequences,)` int64.
        rows: `(1,)` int64, the sum of the lengths.
    """
    starts = op.CumSum(lengths, 0, exclusive=1)
    sequence = segment_of_rows(op, lengths, starts, rows)
    position = op.Sub(row_numbers(op, rows), op.Gather(starts, sequence))
    return Packing(lengths, starts, sequence, position)


def segment_of_rows(op: GraphBuilder, lengths: ir.Value, starts: ir.Value, rows: ir.Value) -> ir.Value:
    """Says to which segment each row belongs, by counting how many have begun.

    Segments without rows are left out of the count, so that no two begin at the same row: a reduction over repeated
    indices would be a race in ONNX Runtime's ScatterND.

    Args:
        op: The graph.
        lengths: `(segments,)` int64 rows of each segment.
        starts: `(segments,)` int64 first row of each segment.
        rows: `(1,)` int64, the sum of the lengths.

    Returns:
        `(rows,)` int64.
    """
    present = op.Squeeze(op.NonZero(lengths), [0])
    zeros = op.ConstantOfShape(rows, value=ir.tensor(np.zeros(1, np.int64)))
    ones = op.ConstantOfShape(op.Shape(present), value=ir.tensor(np.ones(1, np.int64)))
    begins = op.ScatterElements(zeros, op.Gather(starts, present), ones, axis=0)
    return op.Gather(present, op.Sub(op.CumSum(begins, 0), 1))


def row_numbers(op: GraphBuilder, rows: ir.Value) -> ir.Value:
    """Counts `0 … rows - 1`, from rows `(1,)` int64."""
    return op.Range(0, op.Squeeze(rows), 1)
