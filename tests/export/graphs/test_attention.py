import numpy as np
import onnx_ir as ir
import pytest

from export.graphs import blocks
from export.graphs.attention import HeadRows, Heads, attend
from export.graphs.blocks import CAUSAL, EVERYTHING, Reach, cut_blocks
from export.graphs.layers import Batch, HeadNorms, Layers
from export.graphs.packed import pack
from tests.export.array_weights import ArrayWeights


def attention_by_numpy(query, key, value, lengths, heads, reach=EVERYTHING):
    """Return the attention of the textbook formula, one sequence at a time in float64."""
    served = heads.query // heads.key_value
    outputs = []
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        rows = slice(end - length, end)
        q = query[rows].reshape(length, heads.query, heads.size).astype(np.float64)
        k = key[rows].reshape(length, heads.key_value, heads.size).repeat(served, axis=1)
        v = value[rows].reshape(length, heads.key_value, heads.size).repeat(served, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(heads.size)
        distance = np.arange(length) - np.arange(length)[:, None]
        scores[:, distance > (length if reach.after is None else reach.after)] = -np.inf
        scores[:, distance < -(length if reach.before is None else reach.before)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e9))
        weights /= weights.sum(axis=-1, keepdims=True)
        outputs.append(np.einsum("hqk,khd->qhd", weights, v).reshape(length, heads.query * heads.size))
    return np.concatenate(outputs)


def attention_by_graph(run_graph, query, key, value, lengths, heads, dtype=ir.DataType.FLOAT, reach=EVERYTHING):
    def record(op, query, key, value, lengths):
        packing = pack(op, lengths, op.Shape(query, start=0, end=1))
        q, k, v = (HeadRows(op.Reshape(x, [-1, heads.size]), x.shape[1] // heads.size) for x in (query, key, value))
        return [attend(op, q, k, v, heads, cut_blocks(op, packing, heads.query, reach), dtype)]

    return run_graph(record, query, key, value, np.array(lengths))[0]


def random_rows(lengths: list[int], heads: Heads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return random rows of queries, keys and values."""
    random = np.random.default_rng(0)

    def rows_of(count: int) -> np.ndarray:
        return random.standard_normal((sum(lengths), count * heads.size)).astype(np.float32)

    return rows_of(heads.query), rows_of(heads.key_value), rows_of(heads.key_value)


LENGTHS = {
    "one row": [1],
    "one block": [14],
    "exactly one block": [256],
    "one row more than a block": [257],
    "several blocks": [700, 300],
    "many short and one long": [5, 14, 3, 600, 9, 14, 1],
    "empty among others": [0, 7, 0, 0, 300, 2, 0],
    "several groups of one class": [250] * 9,
}


@pytest.mark.parametrize("heads", [Heads(4, 4, 8), Heads(6, 2, 16)], ids=["multi-head", "grouped-query"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_attention_equals_the_textbook_formula(run_graph, lengths, heads):
    rows = random_rows(lengths, heads)
    expected = attention_by_numpy(*rows, lengths, heads)
    np.testing.assert_allclose(attention_by_graph(run_graph, *rows, lengths, heads), expected, atol=2e-6)


@pytest.mark.parametrize("heads", [Heads(4, 4, 8), Heads(6, 2, 16)], ids=["multi-head", "grouped-query"])
@pytest.mark.parametrize(
    "reach",
    [CAUSAL, Reach(64, 64), Reach(5, 0), Reach(before=300), Reach(0, 0), Reach(10_000, 10_000)],
    ids=str,
)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_attention_goes_as_far_as_it_reaches(run_graph, lengths, reach, heads):
    rows = random_rows(lengths, heads)
    expected = attention_by_numpy(*rows, lengths, heads, reach)
    np.testing.assert_allclose(attention_by_graph(run_graph, *rows, lengths, heads, reach=reach), expected, atol=2e-6)


@pytest.mark.parametrize(("reach", "most_keys"), [(Reach(64, 64), 64 + 256 + 64), (CAUSAL, 8192)])
def test_a_long_sequence_needs_no_scores_for_the_square_of_its_length(run_graph, reach, most_keys):
    def record(op, lengths):
        cut = cut_blocks(op, pack(op, lengths, op.ReduceSum(lengths, [0], keepdims=1)), 12, reach)
        return [cut.key_count]

    [key_count] = run_graph(record, np.array([8192]))
    assert key_count.max() == most_keys
    assert key_count.sum() <= (32 * most_keys if reach.before else 256 * sum(range(33)))


def test_half_precision_is_close(run_graph):
    lengths, heads = [40, 3], Heads(4, 2, 16)
    rows = random_rows(lengths, heads)
    expected = attention_by_numpy(*rows, lengths, heads)
    actual = attention_by_graph(run_graph, *rows, lengths, heads, ir.DataType.FLOAT16)
    np.testing.assert_allclose(actual, expected, atol=5e-3)


def test_nan_in_one_sequence_does_not_affect_others(run_graph):
    lengths, heads = [10, 12, 300, 9], Heads(4, 4, 8)
    rows = random_rows(lengths, heads)
    expected = attention_by_numpy(*rows, lengths, heads)
    for x in rows:
        x[10:22] = np.nan
    actual = attention_by_graph(run_graph, *rows, lengths, heads)
    assert np.isnan(actual[10:22]).all()
    np.testing.assert_allclose(np.delete(actual, np.s_[10:22], 0), np.delete(expected, np.s_[10:22], 0), atol=2e-6)


def test_groups_have_similar_lengths_and_a_limited_number_of_scores(run_graph):
    lengths, heads = [14] * 40 + [256, 5000, 30, 0], 12

    def record(op, lengths):
        cut = cut_blocks(op, pack(op, lengths, op.ReduceSum(lengths, [0], keepdims=1)), heads)
        return [cut.group_ends, cut.key_count, cut.query_count]

    group_ends, key_count, query_count = run_graph(record, np.array(lengths))

    assert query_count.sum() == sum(lengths)
    assert group_ends[-1] == len(key_count) == sum(-(-length // 256) for length in lengths)
    for group in np.split(np.arange(len(key_count)), group_ends[:-1]):
        longest, shortest = key_count[group].max(), key_count[group].min()
        assert longest <= max(shortest * blocks.CLASS_RATIO, blocks.SHORTEST_CLASS)
        scores = len(group) * heads * longest * min(longest, blocks.QUERIES_PER_BLOCK)
        assert len(group) == 1 or scores <= blocks.SCORES_PER_GROUP
    assert (key_count == 14).sum() == 40 and len(group_ends) == 20 + 1 + 1 + 1


def test_heads_are_normalized_whether_they_are_rotated_or_not(run_graph):
    lengths, heads = [5, 9], Heads(2, 1, 4)
    random = np.random.default_rng(0)
    shapes = {"q.weight": (8, 8), "k.weight": (4, 8), "v.weight": (4, 8), "q_norm.weight": (4,), "k_norm.weight": (4,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    x = random.standard_normal((sum(lengths), 8)).astype(np.float32)

    def record(op, x, lengths):
        batch = Batch(lengths, op.Shape(x, start=0, end=1), heads)
        sequences = Layers(op, ArrayWeights(weights)).sequences(batch)
        return [sequences.attend(x, "q", "k", "v", HeadNorms("q_norm", "k_norm", 1e-6))]

    def normalize(rows, scale):
        by_head = rows.reshape(len(rows), -1, heads.size)
        return (by_head / np.sqrt((by_head**2).mean(-1, keepdims=True) + 1e-6) * scale).reshape(rows.shape)

    query = normalize(x @ weights["q.weight"].T, weights["q_norm.weight"])
    key = normalize(x @ weights["k.weight"].T, weights["k_norm.weight"])
    expected = attention_by_numpy(query, key, x @ weights["v.weight"].T, lengths, heads)
    np.testing.assert_allclose(run_graph(record, x, np.array(lengths))[0], expected, atol=2e-6)
