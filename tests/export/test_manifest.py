from dataclasses import replace

import pytest

from export.checkpoint import Checkpoint
from export.manifest import fingerprint
from export.spec import ModelSpec
from tests.export.tiny_bert import write_tiny_bert

SPEC = ModelSpec("bert", 32, 100, 48, 48, "mean")


@pytest.fixture
def base(tiny_bert) -> str:
    return fingerprint(Checkpoint(tiny_bert).weights.paths, "fp32", SPEC, b"tokenizer")


def test_copies_of_a_checkpoint_have_the_same_fingerprint(base, own_tiny_bert):
    assert fingerprint(Checkpoint(own_tiny_bert).weights.paths, "fp32", SPEC, b"tokenizer") == base


def test_whatever_changes_vectors_changes_the_fingerprint(base, tiny_bert, tmp_path):
    weights = Checkpoint(tiny_bert).weights.paths
    other = Checkpoint(write_tiny_bert(tmp_path / "other", seed=1)).weights
    others = {
        fingerprint(other.paths, "fp32", SPEC, b"tokenizer"),
        fingerprint(weights, "fp16", SPEC, b"tokenizer"),
        fingerprint(weights, "int8", SPEC, b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, pooling="cls"), b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, normalize=False), b"tokenizer"),
        fingerprint(weights, "fp32", replace(SPEC, query_prefix="query: "), b"tokenizer"),
        fingerprint(weights, "fp32", SPEC, b"another tokenizer"),
    }
    assert len(others) == 7
    assert base not in others
