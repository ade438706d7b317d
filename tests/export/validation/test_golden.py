"""The golden embedding that an export writes into the text ensemble."""

import base64
import json

import numpy as np
import pytest

from export.validation.golden import GOLDEN_TEXT, MIN_COSINES, write_golden


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_golden_parameter_holds_text_embedding_and_tolerance(precision):
    vector = np.linspace(-1, 1, 8, dtype=np.float32)
    golden = json.loads(write_golden(vector, precision))
    assert golden.keys() == {"text", "embedding", "min_cosine"}
    assert (golden["text"], golden["min_cosine"]) == (GOLDEN_TEXT, MIN_COSINES[precision])
    assert np.array_equal(np.frombuffer(base64.b64decode(golden["embedding"]), "<f4"), vector)
