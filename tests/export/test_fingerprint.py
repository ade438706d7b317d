from dataclasses import replace

import pytest
from tiny_bert import write_tiny_bert

from export.fingerprint import fingerprint
from export.safetensors_files import SafetensorsFiles
from export.spec import ModelSpec

SPEC = ModelSpec("bert", 32, 100, 48, 48, "mean")


@pytest.fixture
def base(tiny_bert) -> str:
    return fingerprint(SafetensorsFiles(tiny_bert), "fp32", SPEC, b"tokenizer")


def test_copies_of_a_checkpoint_have_the_same_fingerprint(base, own_tiny_bert):
    assert fingerprint(SafetensorsFiles(own_tiny_bert), "fp32", SPEC, b"tokenizer") == base


def test_whatever_changes_vectors_changes_the_fingerprint(base, tiny_bert, tmp_path):
    weights = SafetensorsFiles(tiny_bert)
    others = {
        fingerprint(SafetensorsFiles(write_tiny_bert(tmp_path / "other", seed=1)), "fp32", SPEC, b"tokenizer"),
        fingerprint(weights, "fp16", SPEC, b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, pooling="cls"), b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, normalize=False), b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, query_prefix="query: "), b"tokenizer"),
        fingerprint(weights, "fp32", SPEC, b"another tokenizer"),
    }
    assert len(others) == 6
    assert base not in others
