"""Plans of BERT checkpoints: their numbers, and graphs that are judged by transformers."""

import json

import pytest
from tiny_bert import DIMENSIONS, MAX_TOKENS, write_json, write_pooling, write_tiny_bert

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.errors import ValidationError
from export.onnx_files import write_graph
from export.sample_texts import SAMPLE_TEXTS
from export.validation import require_agreement


def test_numbers_come_from_the_checkpoint(tiny_bert):
    spec = plan_export(Checkpoint(tiny_bert), "fp32").spec
    config = json.loads((tiny_bert / "config.json").read_text())
    assert (spec.architecture, spec.dimensions, spec.vocab_size) == ("bert", DIMENSIONS, config["vocab_size"])
    assert (spec.max_query_tokens, spec.max_passage_tokens) == (MAX_TOKENS, MAX_TOKENS)
    assert spec.modalities == ("text",)


def test_limit_is_never_above_the_position_table(own_tiny_bert):
    write_json(own_tiny_bert / "sentence_bert_config.json", {"max_seq_length": 9999})
    assert plan_export(Checkpoint(own_tiny_bert), "fp32").spec.max_tokens == 64


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", False), ("cls", True), ("max", True)])
def test_graph_agrees_with_transformers(own_tiny_bert, tmp_path, pooling, normalize):
    write_pooling(own_tiny_bert, pooling, normalize)
    plan = plan_export(Checkpoint(own_tiny_bert), "fp32")
    agreement = plan.compare({"embedder": write_graph(plan.graphs["embedder"](), tmp_path)})
    assert agreement.samples == len(SAMPLE_TEXTS)
    assert agreement.max_abs_error < 1e-5


def test_graph_of_other_weights_is_refused(tiny_bert, tmp_path):
    other = plan_export(Checkpoint(write_tiny_bert(tmp_path / "other", seed=1)), "fp32")
    file = write_graph(other.graphs["embedder"](), tmp_path)
    agreement = plan_export(Checkpoint(tiny_bert), "fp32").compare({"embedder": file})
    with pytest.raises(ValidationError, match="differ from the reference"):
        require_agreement(agreement, "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_keeps_the_direction(tiny_bert, tmp_path, precision):
    plan = plan_export(Checkpoint(tiny_bert), precision)
    agreement = plan.compare({"embedder": write_graph(plan.graphs["embedder"](), tmp_path)})
    require_agreement(agreement, precision)
    assert agreement.max_abs_error > 1e-6
