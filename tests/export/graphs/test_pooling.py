import numpy as np
import pytest

from export.graphs.blocks import cut_blocks
from export.graphs.packed import pack
from export.graphs.pooling import normalize_rows, pool

LENGTHS = [3, 0, 700, 1, 0, 511]


def pool_by_graph(run_graph, hidden, pooling):
    def record(op, hidden, lengths):
        packing = pack(op, lengths, op.Shape(hidden, start=0, end=1))
        return [pool(op, hidden, packing, cut_blocks(op, packing, 12), pooling)]

    return run_graph(record, hidden, np.array(LENGTHS))[0]


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [("mean", lambda x: x.mean(axis=0)), ("max", lambda x: x.max(axis=0)), ("cls", lambda x: x[0])],
    ids=["mean", "max", "cls"],
)
def test_pooling_reduces_each_sequence_and_gives_nan_for_an_empty_one(run_graph, pooling, reduce):
    hidden = np.random.default_rng(0).standard_normal((sum(LENGTHS), 24)).astype(np.float32)
    sequences = np.split(hidden, np.cumsum(LENGTHS)[:-1])
    expected = np.stack([reduce(rows) if len(rows) else np.full(24, np.nan) for rows in sequences])
    np.testing.assert_allclose(pool_by_graph(run_graph, hidden, pooling), expected, atol=1e-6)


def test_nan_in_one_sequence_does_not_affect_others(run_graph):
    hidden = np.ones((sum(LENGTHS), 24), np.float32)
    hidden[3:703] = np.nan
    pooled = pool_by_graph(run_graph, hidden, "mean")
    np.testing.assert_array_equal(np.isnan(pooled).any(axis=1), [False, True, True, False, True, False])


def test_a_zero_row_stays_zero_when_normalized(run_graph):
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    normalized = run_graph(lambda op, x: [normalize_rows(op, x)], rows)[0]
    np.testing.assert_allclose(normalized, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
