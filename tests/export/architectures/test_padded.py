"""Encoders that optimum exports, inside the ragged contract."""

import json

import numpy as np
import onnxruntime
import pytest

from export.architectures import ARCHITECTURES, padded, plan_export
from export.architectures.sentence_transformers import read_sentence_embedding
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, UnservablePrecisionError, ValidationError
from export.graphs.builder import save_model
from export.sample_texts import SAMPLE_TEXTS
from export.validation import require_agreement
from export.validation.text import embed_with_transformers
from tests.export.tiny_bert import write_json
from tests.export.tiny_text_models import PADDED, write_padded

MIXED = [3, 40, 0, 1, 60, 40, 17]


@pytest.mark.parametrize("kind", PADDED)
def test_the_graph_agrees_with_transformers(kind, tmp_path):
    plan = plan_export(Checkpoint(write_padded(tmp_path, kind)), "fp32")
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    assert (plan.layout, plan.spec.vocab_size, plan.spec.dimensions) == ("padded", 192, 32)
    assert agreement.samples == len(SAMPLE_TEXTS)
    assert agreement.max_abs_error < 5e-6


def test_embeddings_of_a_batch_of_mixed_lengths_equal_transformers(tmp_path):
    checkpoint = Checkpoint(write_padded(tmp_path, "distilbert"))
    plan = plan_export(checkpoint, "fp32")
    session = onnxruntime.InferenceSession(save_model(plan.graphs["embedder"](), tmp_path))
    ids = np.random.default_rng(0).integers(4, 190, sum(MIXED))
    found = session.run(None, {"input_ids": ids, "sequence_lengths": np.array(MIXED, np.int32)})[0]
    sequences = [sequence.tolist() for sequence in np.split(ids, np.cumsum(MIXED)[:-1])]
    head = read_sentence_embedding(checkpoint).head
    expected = embed_with_transformers(checkpoint, [sequence for sequence in sequences if sequence], head)
    is_empty = np.array(MIXED) == 0
    np.testing.assert_allclose(found[~is_empty], expected, atol=2e-6)
    assert np.isnan(found[is_empty]).all()


def test_inputs_are_those_of_the_contract(tmp_path):
    plan = plan_export(Checkpoint(write_padded(tmp_path, "electra")), "fp32")
    session = onnxruntime.InferenceSession(save_model(plan.graphs["embedder"](), tmp_path))
    inputs = {tensor.name: (tensor.type, len(tensor.shape)) for tensor in session.get_inputs()}
    assert inputs == {"input_ids": ("tensor(int64)", 1), "sequence_lengths": ("tensor(int32)", 1)}
    [output] = session.get_outputs()
    assert (output.name, output.shape[1]) == ("embeddings", 32)


def test_positions_after_those_for_padding_are_fewer(tmp_path):
    assert plan_export(Checkpoint(write_padded(tmp_path, "mpnet")), "fp32").spec.max_tokens == 64 - 2


def test_the_tokenizer_may_know_a_shorter_limit(tmp_path):
    folder = write_padded(tmp_path, "distilbert")
    write_json(folder / "tokenizer_config.json", {"model_max_length": 20})
    assert plan_export(Checkpoint(folder), "fp32").spec.max_tokens == 20


def test_a_model_without_a_limit_is_refused(tmp_path):
    folder = write_padded(tmp_path, "distilbert")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"max_position_embeddings": None})
    with pytest.raises(CheckpointError, match="says how long a sequence may be"):
        plan_export(Checkpoint(folder), "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_refused(tmp_path, precision):
    with pytest.raises(UnservablePrecisionError, match="in fp32 only: choose --precision fp32"):
        plan_export(Checkpoint(write_padded(tmp_path, "distilbert")), precision)


@pytest.mark.parametrize("target", ["cuda", "tensorrt", "tensorrt-dense"])
def test_gpus_are_refused(tmp_path, target):
    with pytest.raises(UnservablePrecisionError, match="for CPUs only: choose --target cpu"):
        plan_export(Checkpoint(write_padded(tmp_path, "distilbert")), "fp32", target)


def test_a_model_above_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(padded, "MAX_PARAMETERS", 1000)
    with pytest.raises(CheckpointError, match=r"has \d+ parameters; optimum's way takes 1000"):
        plan_export(Checkpoint(write_padded(tmp_path, "distilbert")), "fp32")


def test_a_model_whose_vectors_depend_on_padding_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "nystromformer", "padded")
    plan = plan_export(Checkpoint(write_padded(tmp_path, "nystromformer")), "fp32")
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    with pytest.raises(ValidationError, match="differ from the reference"):
        require_agreement(agreement, "fp32")


def test_a_classifier_is_no_embedder(tmp_path):
    folder = write_padded(tmp_path, "distilbert")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["DistilBertForSequenceClassification"]})
    with pytest.raises(CheckpointError, match="is a sequence classifier"):
        plan_export(Checkpoint(folder), "fp32")
