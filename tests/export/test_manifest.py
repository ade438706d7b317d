import hashlib
import json
from dataclasses import replace

import pytest

from export.checkpoint import Checkpoint
from export.manifest import find_instruction_template, fingerprint
from export.spec import ModelSpec, RankSpec
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
    rank = RankSpec("sigmoid", (2,), (3,), (3,))
    others |= {
        fingerprint(weights, "fp32", replace(SPEC, rank=each), b"tokenizer")
        for each in (rank, replace(rank, middle=(3, 3)), replace(rank, token_types=True))
    }
    assert len(others) == 10
    assert base not in others


def test_embedders_keep_the_fingerprints_that_they_had_before_there_were_rerankers(tiny_bert):
    """Vectors of the same weights, exported by an older version, stay comparable."""
    known = {
        "architecture": "bert", "dimensions": 32, "vocab_size": 100, "max_query_tokens": 48, "max_passage_tokens": 48,
        "pooling": "mean", "normalize": True, "query_prefix": "", "passage_prefix": "", "image_embeds_dim": None,
        "image": None,
    }  # fmt: skip
    paths = Checkpoint(tiny_bert).weights.paths
    parts = {
        "weights": [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths],
        "precision": "fp32",
        "spec": known,
        "tokenizer": hashlib.sha256(b"tokenizer").hexdigest(),
    }
    expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert fingerprint(paths, "fp32", SPEC, b"tokenizer") == expected


@pytest.mark.parametrize(
    ("query_prefix", "template"),
    [
        ("Instruct: Given a web search query, retrieve passages\nQuery:", "Instruct: {instruction}\nQuery:"),
        ("Instruct: a\nb\nQuery: ", "Instruct: {instruction}\nQuery: "),
        ("query: ", None),
        ("task: search result | query: ", None),
        ("", None),
    ],
)
def test_the_template_of_instructions_is_found_in_the_prefix_of_queries(query_prefix, template):
    assert find_instruction_template(query_prefix) == template
