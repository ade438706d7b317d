"""The golden embedding that an export writes into the text ensemble."""

import base64
import json

import numpy as np
import pytest

from export.validation.golden import GOLDEN_QUERY, GOLDEN_TEXT, MIN_COSINES, write_golden, write_golden_score


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_golden_parameter_holds_text_embedding_and_tolerance(precision):
    vector = np.linspace(-1, 1, 8, dtype=np.float32)
    golden = json.loads(write_golden(vector, precision))
    assert golden.keys() == {"text", "embedding", "min_cosine"}
    assert (golden["text"], golden["min_cosine"]) == (GOLDEN_TEXT, MIN_COSINES[precision])
    assert np.array_equal(np.frombuffer(base64.b64decode(golden["embedding"]), "<f4"), vector)


@pytest.mark.parametrize(("score", "allowed"), [(-0.5, 1e-3), (-8.0, 8e-3)])
def test_golden_score_may_differ_by_a_part_of_it(score, allowed):
    golden = json.loads(write_golden_score(score, "fp32"))
    expected = {"query": GOLDEN_QUERY, "text": GOLDEN_TEXT, "score": score, "max_abs_error": pytest.approx(allowed)}
    assert golden == expected
