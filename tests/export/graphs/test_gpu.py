"""Pooling in the forms for GPUs."""

import numpy as np
import pytest

from export.graphs.attention import Heads
from export.graphs.cuda import CudaLayers
from export.graphs.layers import Batch
from tests.export.array_weights import ArrayWeights

LENGTHS = [3, 0, 700, 1, 0, 511]


def pool_by_graph(run_graph, hidden, pooling, precision="fp32"):
    def record(op, hidden, lengths):
        layers = CudaLayers(op, ArrayWeights({}), precision)
        sequences = layers.sequences(Batch(lengths, op.Shape(hidden, start=0, end=1), Heads(3, 3, 8)))
        return [sequences.pool(hidden, pooling)]

    return run_graph(record, hidden, np.array(LENGTHS))[0]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 4e-3)])
@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [("mean", lambda x: x.mean(axis=0)), ("max", lambda x: x.max(axis=0)), ("cls", lambda x: x[0])],
    ids=["mean", "max", "cls"],
)
def test_pooling_reduces_each_sequence_and_gives_nan_for_an_empty_one(run_graph, pooling, reduce, precision, tolerance):
    hidden = np.random.default_rng(0).standard_normal((sum(LENGTHS), 24)).astype(np.float32)
    sequences = np.split(hidden, np.cumsum(LENGTHS)[:-1])
    expected = np.stack([reduce(rows) if len(rows) else np.full(24, np.nan) for rows in sequences])
    np.testing.assert_allclose(pool_by_graph(run_graph, hidden, pooling, precision), expected, atol=tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_in_one_sequence_does_not_affect_others(run_graph, bad):
    hidden = np.ones((sum(LENGTHS), 24), np.float32)
    hidden[300, 5] = bad
    pooled = pool_by_graph(run_graph, hidden, "mean", "fp16")
    np.testing.assert_array_equal(np.isnan(pooled).any(axis=1), [False, True, True, False, True, False])
    np.testing.assert_allclose(pooled[[0, 3, 5]], 1, atol=1e-3)
