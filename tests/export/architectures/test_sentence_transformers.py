"""What the files of sentence-transformers say, and what is refused of it."""

import shutil
from pathlib import Path

import pytest

from export.architectures import plan_export
from export.architectures.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.graphs.text_embedder import DenseLayer, SentenceHead
from export.validation import require_agreement
from tests.export.tiny_bert import DIMENSIONS, MAX_TOKENS, POOLING_MODES, write_json, write_pooling
from tests.export.tiny_text_models import write_gemma3, write_modules


def test_files_are_read(own_tiny_bert):
    prompts = {"query": "query: ", "document": "passage: "}
    write_json(own_tiny_bert / "config_sentence_transformers.json", {"prompts": prompts})
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)) == SentenceEmbedding(
        SentenceHead("mean"), MAX_TOKENS, query_prefix="query: ", passage_prefix="passage: ", prompts=prompts
    )


@pytest.mark.parametrize("pooling", POOLING_MODES)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalisation_are_read(own_tiny_bert, pooling, normalize):
    write_pooling(own_tiny_bert, pooling, normalize)
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)).head == SentenceHead(pooling, normalize=normalize)


def test_checkpoint_without_files_is_mean_pooled_and_normalised(tmp_path):
    assert read_sentence_embedding(Checkpoint(tmp_path)) == SentenceEmbedding(SentenceHead("mean", (), normalize=True))


def test_default_prompt_applies_to_queries_and_passages_without_their_own(tmp_path):
    config = {"prompts": {"any": "text: ", "query": "ask: "}, "default_prompt_name": "any"}
    write_json(tmp_path / "config_sentence_transformers.json", config)
    found = read_sentence_embedding(Checkpoint(tmp_path))
    assert (found.query_prefix, found.passage_prefix) == ("ask: ", "text: ")


def test_dense_modules_are_read_with_their_weights(tmp_path):
    checkpoint = Checkpoint(write_gemma3(tmp_path))
    head = read_sentence_embedding(checkpoint).head
    assert head.dense == (DenseLayer("2_Dense.linear", 64), DenseLayer("3_Dense.linear", 24, "tanh"))
    assert checkpoint.weights.shape("3_Dense.linear.weight") == (24, 64)
    assert len(checkpoint.weights.paths) == 3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bert_may_have_dense_modules_too(own_tiny_bert, tmp_path, precision):
    write_modules(own_tiny_bert, "cls_token", [(12, "activation.GELU", True)])
    plan = plan_export(Checkpoint(own_tiny_bert), precision)
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    assert plan.spec.dimensions == 12
    require_agreement(agreement, precision)


def test_the_transformer_may_have_a_folder_of_its_own(own_tiny_bert, tmp_path):
    whole = plan_export(Checkpoint(own_tiny_bert), "fp32")
    inner = own_tiny_bert / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"):
        shutil.move(own_tiny_bert / name, inner / name)
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]
    write_json(own_tiny_bert / "modules.json", modules)
    plan = plan_export(Checkpoint(own_tiny_bert), "fp32")
    assert (plan.spec, plan.tokenizer) == (whole.spec, whole.tokenizer)
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    assert agreement.max_abs_error < 2e-6


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["Transformer", "Pooling", "Normalize", "WordWeights"], "asks for WordWeights; only Transformer, Pooling, "),
        (["Transformer", "Pooling", "Normalize", "Dense"], "has the order Transformer, Pooling, Normalize, Dense"),
        (["Transformer", "Pooling", "Pooling"], "has the order"),
    ],
)
def test_unsupported_modules_are_refused(own_tiny_bert, modules, message):
    write_json(own_tiny_bert / "modules.json", [{"type": f"st.models.{kind}", "path": ""} for kind in modules])
    with pytest.raises(CheckpointError, match=message):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


@pytest.mark.parametrize("content", [{"a": 1}, [1], ["Transformer"], [{"path": ""}], 5])
def test_modules_that_are_no_modules_are_refused(own_tiny_bert, content):
    write_json(own_tiny_bert / "modules.json", content)
    with pytest.raises(CheckpointError, match=r"modules\.json is not a list of modules"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


@pytest.mark.parametrize(
    "modes",
    [
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_unsupported_pooling_is_refused(own_tiny_bert, modes):
    write_json(own_tiny_bert / "1_Pooling" / "config.json", modes)
    with pytest.raises(CheckpointError, match="only mean, cls, max, last are supported, alone"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


def test_pooling_without_the_prompt_is_refused_where_there_is_a_prompt(own_tiny_bert):
    write_json(own_tiny_bert / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False})
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)).head.pooling == "mean"
    write_json(own_tiny_bert / "config_sentence_transformers.json", {"prompts": {"query": "ask: "}})
    with pytest.raises(CheckpointError, match="include_prompt"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Hardtanh"}, "asks for the activation Hardtanh"),
        ({"out_features": 5}, "does not fit its weights"),
        ({"in_features": None}, "does not fit its weights"),
    ],
)
def test_unsupported_dense_modules_are_refused(own_tiny_bert, changes, message):
    write_modules(own_tiny_bert, "mean_tokens", [(12, "activation.Tanh", False)])
    path = own_tiny_bert / "2_Dense" / "config.json"
    write_json(path, Checkpoint(own_tiny_bert).require_json("2_Dense/config.json") | changes)
    with pytest.raises(CheckpointError, match=message):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


def test_a_module_outside_the_checkpoint_is_refused(own_tiny_bert: Path, tmp_path: Path) -> None:
    write_modules(own_tiny_bert, "mean_tokens", [(12, "activation.Tanh", False)])
    shutil.move(own_tiny_bert / "2_Dense", tmp_path / "elsewhere")
    (own_tiny_bert / "2_Dense").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link out of the checkpoint"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


def test_width_is_that_of_the_last_module(own_tiny_bert):
    write_modules(own_tiny_bert, "mean_tokens", [(12, "activation.Tanh", False), (7, "linear.Identity", False)])
    spec = plan_export(Checkpoint(own_tiny_bert), "fp32").spec
    assert (spec.dimensions, DIMENSIONS) == (7, 32)


def test_prompts_whose_tokens_are_not_pooled_are_left_out(own_tiny_bert):
    write_json(own_tiny_bert / "config_sentence_transformers.json", {"prompts": {"Clustering": "cluster: "}})
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)).prompts == {"Clustering": "cluster: "}
    write_json(own_tiny_bert / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False})
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)).prompts == {}
