"""Rerankers of every architecture: graphs compared with transformers, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.pairs import Pair
from export.sample_texts import SAMPLE_TEXTS
from export.validation import require_agreement, run_graph
from export.validation.reranker import score_with_transformers
from tests.export.tiny_bert import write_json
from tests.export.tiny_rerankers import RERANKERS, write_bert, write_llama, write_modernbert, write_qwen3

MIXED = [3, 40, 0, 1, 300, 40, 17]


@pytest.fixture(scope="module", params=RERANKERS)
def checkpoint(request, tmp_path_factory) -> Path:
    """Return a folder that tests only read."""
    return RERANKERS[request.param](tmp_path_factory.mktemp(request.param))


def plan(folder: Path, precision="fp32", target="cpu"):
    return plan_export(Checkpoint(folder), precision, target, "rank")


def change_json(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_graph_agrees_with_transformers(checkpoint, precision, tmp_path):
    planned = plan(checkpoint, precision)
    agreement = planned.compare({"reranker": save_model(planned.graphs["reranker"](), tmp_path)})
    require_agreement(agreement, precision)
    assert agreement.samples == len(SAMPLE_TEXTS)
    if precision == "fp32":
        assert agreement.max_abs_error < 2e-5


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_scores_of_a_batch_of_mixed_lengths_equal_transformers(checkpoint, target, tmp_path):
    planned = plan(checkpoint, "fp32", target)
    graph = save_model(planned.graphs["reranker"](), tmp_path)
    random = np.random.default_rng(0)
    pairs = [Pair(random.integers(4, 190, n).tolist(), [0] * (n // 3) + [1] * (n - n // 3)) for n in MIXED]
    inputs = {
        "input_ids": np.concatenate([np.array(pair.input_ids, np.int64) for pair in pairs]),
        "sequence_lengths": np.array(MIXED, np.int32),
    }
    if planned.spec.rank.token_types:
        inputs["token_types"] = np.concatenate([np.array(pair.token_types, np.int64) for pair in pairs])
    found = run_graph(graph, target, "scores", inputs)
    architecture = planned.spec.architecture
    answers = (257, 258) if architecture == "qwen3" else None
    present = [pair for pair in pairs if pair.input_ids]
    expected = score_with_transformers(Checkpoint(checkpoint), present, architecture == "llama_bidirec", answers)
    is_empty = np.array(MIXED) == 0
    np.testing.assert_allclose(found[~is_empty], expected, atol=2e-5)
    assert np.isnan(found[is_empty]).all()


def test_the_spec_comes_from_the_checkpoint(checkpoint):
    spec = plan(checkpoint).spec
    assert (spec.task, spec.dimensions, spec.max_tokens, spec.normalize) == ("rank", 1, 600, False)
    expected = {
        "bert": ("identity", (2,), (3,), (3,), True),
        "xlm-roberta": ("sigmoid", (2,), (3, 3), (3,), False),
        "modernbert": ("sigmoid", (2,), (3,), (3,), False),
        "llama_bidirec": ("identity", (), (), (), False),
    }
    rank = spec.rank
    assert rank is not None
    if spec.architecture in expected:
        found = (rank.activation, rank.head, rank.middle, rank.tail, rank.token_types)
        assert found == expected[spec.architecture]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "identity"),
        ({"sbert_ce_default_activation_function": None}, "sigmoid"),
    ],
)
def test_the_activation_is_that_of_sentence_transformers(settings, expected, tmp_path):
    folder = write_bert(tmp_path)
    change_json(folder / "config.json", **settings)
    assert plan(folder).spec.rank.activation == expected


def test_qwen3_that_was_made_a_classifier_has_the_same_scores(tmp_path):
    generator = write_qwen3(tmp_path / "generator")
    classifier = Path(shutil.copytree(generator, tmp_path / "classifier"))
    tensors = load_file(classifier / "model.safetensors")
    output = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    tensors["score.weight"] = output[257:258] - output[258:259]
    save_file(tensors, classifier / "model.safetensors", metadata={"format": "pt"})
    change_json(classifier / "config.json", architectures=["Qwen3ForSequenceClassification"], num_labels=1)
    plans = [plan_export(Checkpoint(generator), "fp32", task="rank"), plan_export(Checkpoint(classifier), "fp32")]
    ids = np.random.default_rng(0).integers(4, 190, 50)
    inputs = {"input_ids": ids, "sequence_lengths": np.array([20, 30], np.int32)}
    scores = []
    for index, planned in enumerate(plans):
        (tmp_path / str(index)).mkdir()
        path = save_model(planned.graphs["reranker"](), tmp_path / str(index))
        scores.append(onnxruntime.InferenceSession(path).run(["scores"], inputs)[0])
    np.testing.assert_array_equal(*scores)
    agreement = plans[1].compare({"reranker": path})
    assert agreement.max_abs_error < 2e-5


def test_the_task_has_to_fit_the_checkpoint(tmp_path):
    bert, qwen3 = write_bert(tmp_path / "bert"), write_qwen3(tmp_path / "qwen3")
    with pytest.raises(CheckpointError, match="is a reranker, not an embedding model"):
        plan_export(Checkpoint(bert), "fp32", task="embed")
    with pytest.raises(CheckpointError, match=r"not an embedding model \(a Qwen3 reranker needs --task rank\)"):
        plan_export(Checkpoint(qwen3), "fp32")
    change_json(bert / "config.json", architectures=["BertModel"])
    with pytest.raises(CheckpointError, match=r"\(BertModel\) is not a reranker of a kind that is supported"):
        plan_export(Checkpoint(bert), "fp32", task="rank")


def test_a_classifier_with_several_labels_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is a classifier with 3 labels; a reranker has one"):
        plan(write_bert(tmp_path, num_labels=3))


def test_rerankers_are_not_exported_for_tensorrt(tmp_path):
    with pytest.raises(CheckpointError, match="for cpu and cuda only, not for tensorrt"):
        plan(write_bert(tmp_path), "fp16", "tensorrt")


def test_graphs_for_gpus_have_the_scores_of_transformers(checkpoint, tmp_path):
    planned = plan(checkpoint, "fp32", "cuda")
    agreement = planned.compare({"reranker": save_model(planned.graphs["reranker"](), tmp_path)})
    assert agreement.max_abs_error < 2e-5


@pytest.mark.parametrize(
    ("write", "file", "changes", "message"),
    [
        (
            write_bert,
            "config.json",
            {"sbert_ce_default_activation_function": "torch.nn.Tanh"},
            "activation torch.nn.Tanh",
        ),
        (write_bert, "tokenizer_config.json", {"model_max_length": 20}, "a short query takes .* no document would fit"),
        (write_modernbert, "config.json", {"classifier_pooling": "max"}, "classifier_pooling 'max' is not supported"),
        (write_llama, "config.json", {"temperature": 0}, "temperature is 0, not a number between 0 and 1e[+]06"),
        (write_llama, "config.json", {"pooling": "weighted"}, "pooling 'weighted' is not supported"),
    ],
)
def test_unsupported_options_are_refused_by_name(write, file, changes, message, tmp_path):
    folder = write(tmp_path)
    change_json(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        plan(folder)


def test_a_generator_without_the_answers_is_refused(tmp_path):
    folder = write_qwen3(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["YES"] = tokenizer["model"]["vocab"].pop("yes")
    tokenizer["model"]["merges"] = []
    write_json(folder / "tokenizer.json", tokenizer)
    with pytest.raises(CheckpointError, match="has no token 'yes'"):
        plan(folder)


def test_a_tokenizer_that_joins_pairs_in_another_way_is_refused(tmp_path):
    folder = write_bert(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pair = tokenizer["post_processor"]["pair"]
    tokenizer["post_processor"]["pair"] = [pair[3], pair[0], pair[2], pair[1], pair[4]]  # the document first
    write_json(folder / "tokenizer.json", tokenizer)
    with pytest.raises(CheckpointError, match="joins a query and a document in a way that is not supported"):
        plan(folder)


def test_a_model_without_an_output_layer_of_its_own_answers_with_its_embeddings(tmp_path):
    folder = write_qwen3(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    planned = plan(folder)
    agreement = planned.compare({"reranker": save_model(planned.graphs["reranker"](), tmp_path)})
    assert agreement.max_abs_error < 2e-5
