"""Blocks of packed sequences, in groups of similar length: what attention iterates over.

A block is one sequence with up to 256 of its queries, so that a long sequence never needs scores for the square of its
length at once. A group is a few blocks of similar length, padded to the longest of them: many short sequences cost one
iteration, and a long sequence does not slow them down.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graphs.builder import GraphBuilder
from export.graphs.packed import Packing, row_numbers, segment_of_rows

# Measured with MiniLM's shapes on CPUs: time is flat from 2^18 to 2^22 scores and from ratio 1.12 to 1.5.
QUERIES_PER_BLOCK = 256  # a larger block gains up to a tenth in time, for as much more memory
SCORES_PER_GROUP = 1 << 20  # elements, over all heads
SHORTEST_CLASS = 16  # tokens; sequences up to this length share one class
CLASS_RATIO = 1.25  # longest to shortest sequence of each other class


@dataclass(frozen=True)
class Reach:
    """Which rows of its sequence a row attends to.

    Attributes:
        before: Number of rows before its own; None for all.
        after: Number of rows after its own; None for all.
    """

    before: int | None = None
    after: int | None = None


EVERYTHING = Reach()
CAUSAL = Reach(after=0)


@dataclass(frozen=True)
class Blocks:
    """Blocks in the order in which attention visits them, longest sequences first; all int64.

    Attributes:
        sequence: Sequence of each block, `(blocks,)`.
        query_start: First row of its queries, `(blocks,)`.
        query_count: Number of its queries, 1 to 256, `(blocks,)`.
        key_start: First row of its keys: those of the sequence that its queries can reach, `(blocks,)`.
        key_count: Number of its keys, `(blocks,)`.
        group_ends: One past the last block of each group, `(groups,)`.
        output_head: Place of each head of each row in the concatenated outputs of the groups, `(rows, heads)`. An
            output is ordered by block, then by head, then by query, padded to the longest block of the group.
        reach: Which keys each query attends to.
    """

    sequence: ir.Value
    query_start: ir.Value
    query_count: ir.Value
    key_start: ir.Value
    key_count: ir.Value
    group_ends: ir.Value
    output_head: ir.Value
    reach: Reach = EVERYTHING


def cut_blocks(op: GraphBuilder, packing: Packing, heads: int, reach: Reach = EVERYTHING) -> Blocks:
    """Cut the sequences of a batch into blocks, once for all layers of the same reach.

    Args:
        op: The graph.
        packing: The batch.
        heads: Number of query heads, which limits the size of a group.
        reach: Which keys each query attends to.
    """
    with op.scope("blocks"):
        counts = op.Div(op.Add(packing.lengths, QUERIES_PER_BLOCK - 1), QUERIES_PER_BLOCK)
        first_block = op.CumSum(counts, 0, exclusive=1)
        blocks = op.ReduceSum(counts, [0], keepdims=1)
        sequence = segment_of_rows(op, counts, first_block, blocks)
        rank = op.Sub(row_numbers(op, blocks), op.Gather(first_block, sequence))
        offset = op.Mul(rank, QUERIES_PER_BLOCK)
        length = op.Gather(packing.lengths, sequence)
        first_key, end_key = _reached_keys(op, offset, length, reach)
        key_count, order = op.record("TopK", [op.Sub(end_key, first_key), blocks], {"axis": 0}, outputs=2)
        sequence, offset, first_key = (op.Gather(x, order) for x in (sequence, offset, first_key))
        start = op.Gather(packing.starts, sequence)
        group_start = _group_start(op, key_count, blocks, heads)
        begins = op.Squeeze(op.NonZero(op.Equal(group_start, row_numbers(op, blocks))), [0])
        return Blocks(
            sequence=sequence,
            query_start=op.Add(start, offset),
            query_count=op.Min(op.Sub(op.Gather(length, order), offset), QUERIES_PER_BLOCK),
            key_start=op.Add(start, first_key),
            key_count=key_count,
            group_ends=op.Concat(op.Slice(begins, [1], [np.iinfo(np.int64).max]), blocks, axis=0),
            output_head=_output_head(op, packing, first_block, order, op.Gather(key_count, group_start), heads),
            reach=reach,
        )


def _reached_keys(op: GraphBuilder, offset: ir.Value, length: ir.Value, reach: Reach) -> tuple[ir.Value, ir.Value]:
    """Return the first key that a block reaches, and one past the last, counted from the start of its sequence."""
    first = op.Mul(offset, 0) if reach.before is None else op.Max(op.Sub(offset, reach.before), 0)
    if reach.after is None:
        return first, length
    return first, op.Min(op.Add(offset, QUERIES_PER_BLOCK + reach.after), length)


def _group_start(op: GraphBuilder, key_count: ir.Value, blocks: ir.Value, heads: int) -> ir.Value:
    """Return the first block of each block's group, `(blocks,)`.

    A group begins where a class of lengths begins, and again whenever its scores reach the limit.
    """
    relative = op.Div(op.Cast(key_count, to=ir.DataType.FLOAT), float(SHORTEST_CLASS))
    length_class = op.Ceil(op.Div(op.Log(op.Max(relative, 1.0)), float(np.log(CLASS_RATIO))))
    class_start = _run_start(op, length_class, blocks)
    longest = op.Gather(key_count, class_start)
    scores = op.Mul(op.Mul(longest, heads), op.Min(longest, QUERIES_PER_BLOCK))
    blocks_per_group = op.Max(op.Div(SCORES_PER_GROUP, scores), 1)
    block = row_numbers(op, blocks)
    return op.Sub(block, op.Mod(op.Sub(block, class_start), blocks_per_group))


def _run_start(op: GraphBuilder, x: ir.Value, size: ir.Value) -> ir.Value:
    """Return the index at which the run of equal values around each element begins."""
    previous = op.Gather(x, op.Max(op.Sub(row_numbers(op, size), 1), 0))
    changes = op.Cast(op.Not(op.Equal(x, previous)), to=ir.DataType.INT64)
    starts = op.Concat([0], op.Squeeze(op.NonZero(changes), [0]), axis=0)
    return op.Gather(starts, op.CumSum(changes, 0))


def _output_head(
    op: GraphBuilder,
    packing: Packing,
    first_block: ir.Value,
    order: ir.Value,
    longest_in_group: ir.Value,
    heads: int,
) -> ir.Value:
    """Return `Blocks.output_head`."""
    padded_queries = op.Min(longest_in_group, QUERIES_PER_BLOCK)
    block_start = op.Mul(op.CumSum(padded_queries, 0, exclusive=1), heads)
    visited_as = op.ScatterElements(order, order, row_numbers(op, op.Shape(order)), axis=0)
    rank = op.Div(packing.position, QUERIES_PER_BLOCK)
    block = op.Gather(visited_as, op.Add(op.Gather(first_block, packing.sequence), rank))
    first_head = op.Add(op.Gather(block_start, block), op.Mod(packing.position, QUERIES_PER_BLOCK))
    stride = op.Unsqueeze(op.Gather(padded_queries, block), [1])
    return op.Add(op.Unsqueeze(first_head, [1]), op.Mul(stride, np.arange(heads, dtype=np.int64)))
