"""The sequence and position of each packed row, in time linear in the number of rows."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graphs.builder import GraphBuilder


@dataclass(frozen=True)
class Packing:
    """The layout of sequences in packed rows; all int64.

    Attributes:
        lengths: Number of rows of each sequence, which may be 0, `(sequences,)`.
        starts: First row of each sequence, `(sequences,)`.
        sequence: Sequence of each row, `(rows,)`.
        position: Position of each row in its sequence, from 0, `(rows,)`.
    """

    lengths: ir.Value
    starts: ir.Value
    sequence: ir.Value
    position: ir.Value


def pack(op: GraphBuilder, lengths: ir.Value, rows: ir.Value) -> Packing:
    """Derive the packing from the lengths.

    Args:
        op: The graph.
        lengths: Number of rows of each sequence, `(sequences,)` int64.
        rows: Sum of the lengths, `(1,)` int64.
    """
    starts = op.CumSum(lengths, 0, exclusive=1)
    sequence = segment_of_rows(op, lengths, starts, rows)
    position = op.Sub(row_numbers(op, rows), op.Gather(starts, sequence))
    return Packing(lengths, starts, sequence, position)


def pack_by_comparison(op: GraphBuilder, lengths: ir.Value, rows: ir.Value) -> Packing:
    """Derive the packing from the lengths without operators whose results have an unknown size.

    Such operators, like `NonZero`, make the processor wait for a GPU, and TensorRT builds none that are followed by a
    scatter. Each row is compared with the end of each sequence instead, which takes rows * sequences comparisons.

    Args:
        op: The graph.
        lengths: Number of rows of each sequence, `(sequences,)` int64.
        rows: Sum of the lengths, `(1,)` int64.
    """
    ends = op.CumSum(lengths, 0)
    row = row_numbers(op, rows)
    has_ended = op.GreaterOrEqual(op.Unsqueeze(row, [1]), op.Unsqueeze(ends, [0]))
    sequence = op.ReduceSum(op.Cast(has_ended, to=ir.DataType.INT32), [1], keepdims=0)
    sequence = op.Cast(sequence, to=ir.DataType.INT64)
    starts = op.Sub(ends, lengths)
    return Packing(lengths, starts, sequence, op.Sub(row, op.Gather(starts, sequence)))


def segment_of_rows(op: GraphBuilder, lengths: ir.Value, starts: ir.Value, rows: ir.Value) -> ir.Value:
    """Return the segment of each row, by counting the segments that have begun.

    Segments without rows are not counted, so that no two begin at the same row: a reduction over repeated indices would
    be a race in ONNX Runtime's ScatterND.

    Args:
        op: The graph.
        lengths: Number of rows of each segment, `(segments,)` int64.
        starts: First row of each segment, `(segments,)` int64.
        rows: Sum of the lengths, `(1,)` int64.

    Returns:
        Segment numbers `(rows,)` int64.
    """
    present = op.Squeeze(op.NonZero(lengths), [0])
    zeros = op.ConstantOfShape(rows, value=ir.tensor(np.zeros(1, np.int64)))
    ones = op.ConstantOfShape(op.Shape(present), value=ir.tensor(np.ones(1, np.int64)))
    begins = op.ScatterElements(zeros, op.Gather(starts, present), ones, axis=0)
    return op.Gather(present, op.Sub(op.CumSum(begins, 0), 1))


def row_numbers(op: GraphBuilder, rows: ir.Value) -> ir.Value:
    """Return `0 … rows - 1`, for `rows` `(1,)` int64."""
    return op.Range(0, op.Squeeze(rows), 1)
