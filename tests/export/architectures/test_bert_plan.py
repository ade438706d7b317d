"""Plans of BERT checkpoints: numbers, and graphs compared with transformers."""

import json
from pathlib import Path

import pytest

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, ValidationError
from export.graphs.builder import save_model
from export.sample_texts import SAMPLE_TEXTS
from export.validation import require_agreement
from tests.export.tiny_bert import DIMENSIONS, MAX_TOKENS, write_json, write_pooling, write_tiny_bert


def test_spec_comes_from_the_checkpoint(tiny_bert):
    spec = plan_export(Checkpoint(tiny_bert), "fp32").spec
    config = json.loads((tiny_bert / "config.json").read_text())
    assert (spec.architecture, spec.dimensions, spec.vocab_size) == ("bert", DIMENSIONS, config["vocab_size"])
    assert (spec.max_query_tokens, spec.max_passage_tokens) == (MAX_TOKENS, MAX_TOKENS)
    assert spec.modalities == ("text",)


def test_limit_is_at_most_the_size_of_the_position_table(own_tiny_bert):
    write_json(own_tiny_bert / "sentence_bert_config.json", {"max_seq_length": 9999})
    assert plan_export(Checkpoint(own_tiny_bert), "fp32").spec.max_tokens == 64


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", False), ("cls", True), ("max", True)])
def test_graph_agrees_with_transformers(own_tiny_bert, tmp_path, pooling, normalize):
    write_pooling(own_tiny_bert, pooling, normalize)
    plan = plan_export(Checkpoint(own_tiny_bert), "fp32")
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    assert agreement.samples == len(SAMPLE_TEXTS)
    assert agreement.max_abs_error < 1e-5


def test_graph_of_other_weights_is_refused(tiny_bert, tmp_path):
    other = plan_export(Checkpoint(write_tiny_bert(tmp_path / "other", seed=1)), "fp32")
    file = save_model(other.graphs["embedder"](), tmp_path)
    agreement = plan_export(Checkpoint(tiny_bert), "fp32").compare({"embedder": file})
    with pytest.raises(ValidationError, match="differ from the reference"):
        require_agreement(agreement, "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_keeps_the_direction(tiny_bert, tmp_path, precision):
    plan = plan_export(Checkpoint(tiny_bert), precision)
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    require_agreement(agreement, precision)
    assert agreement.max_abs_error > 1e-6


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **changes})


@pytest.mark.parametrize(
    "classes",
    [
        None, [], ["BertModel"], ["BertForMaskedLM"], ["BertForPreTraining"], ["RobertaModel"], ["RobertaForMaskedLM"],
        ["XLMRobertaModel"], ["CamembertModel"], ["CamembertForMaskedLM"],
    ],
)  # fmt: skip
def test_classes_of_published_embedders_are_accepted(own_tiny_bert, classes):
    change_config(own_tiny_bert, architectures=classes)
    assert plan_export(Checkpoint(own_tiny_bert), "fp32").spec.dimensions == DIMENSIONS


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["BertForTokenClassification"], "is a token classifier .*, not an embedding"),
        (["XLMRobertaForTokenClassification"], r"is a token classifier \(XLMRobertaForTokenClassification\)"),
        (["BertForQuestionAnswering"], "is a question answering model"),
        (["BertLMHeadModel"], "is a text generator"),
        (["HF_ColBERT"], "architecture 'HF_ColBERT' is not supported"),
        ("BertModel", "architectures is not a list of names"),
        ([1], "architectures is not a list of names"),
    ],
)
def test_class_other_than_an_embedding_model_is_refused_by_name(own_tiny_bert, classes, message):
    change_config(own_tiny_bert, architectures=classes)
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a positive integer"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not a positive integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, not a positive integer"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, not a positive integer"),
        ({"num_attention_heads": 5}, r"hidden_size is 32, not a multiple of num_attention_heads \(5\)"),
        ({"hidden_size": -32}, "hidden_size is -32, not a positive integer"),
        ({"hidden_size": "many"}, "hidden_size is 'many', not a positive integer"),
        ({"hidden_size": 40}, r"hidden_size is 40, but the position embeddings have the shape \(64, 32\)"),
        ({"intermediate_size": 1.5}, "intermediate_size is 1.5, not a positive integer"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0, not a positive integer"),
        ({"max_position_embeddings": 65}, "max_position_embeddings is 65, but there are 64 position embeddings"),
        ({"max_position_embeddings": 10**9}, "max_position_embeddings is 1000000000, not a positive integer up to"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a positive integer up to 1024"),
        ({"num_hidden_layers": 10**3000}, "num_hidden_layers is a number of 3001 digits, not a positive integer"),
        ({"hidden_size": "x" * 10**6}, "hidden_size is 'x{39}…, not a positive integer"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, not a number between 0 and 1"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps is inf, not a number between 0 and 1"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps is -1e-12, not a number between 0 and 1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0, not a number"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12', not a number"),
        ({"layer_norm_eps": True}, "layer_norm_eps is True, not a number"),
        ({"model_type": "roberta", "pad_token_id": -9}, "pad_token_id is -9, not a token id"),
        ({"model_type": "roberta", "pad_token_id": "x"}, "pad_token_id is 'x', not a token id"),
        ({"model_type": "x" * 10**6}, "architecture 'x{59} is not supported"),
        ({"model_type": "roberta", "pad_token_id": 64}, "max_position_embeddings is 64: all are for padding"),
    ],
)
def test_impossible_sizes_are_refused_by_name(own_tiny_bert, changes, message):
    change_config(own_tiny_bert, **changes)
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


@pytest.mark.parametrize("limit", [0, -5, "long"])
def test_impossible_limit_is_refused(own_tiny_bert, limit):
    write_json(own_tiny_bert / "sentence_bert_config.json", {"max_seq_length": limit})
    with pytest.raises(CheckpointError, match=f"max_seq_length is {limit!r}, not a positive integer"):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


@pytest.mark.parametrize("value", ["false", 0, []])
def test_lowering_that_is_neither_on_nor_off_is_refused(own_tiny_bert, value):
    write_json(own_tiny_bert / "sentence_bert_config.json", {"do_lower_case": value})
    with pytest.raises(CheckpointError, match=r"do_lower_case is .*, not true or false"):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"query": 5}, "query is 5, not a text"),
        ({"document": None}, "document is None, not a text"),
        ({"query": "a" * 4097}, "not a text of at most 4096 characters"),
        ([1], r"prompts is \[1\], not an object"),
        ({"query": "a " * 46}, "a query has 48 tokens before its text, of at most 48: nothing would fit"),
        ({"passage": "a " * 99}, "a passage has 101 tokens before its text, of at most 48"),
    ],
)
def test_impossible_prompts_are_refused(own_tiny_bert, prompts, message):
    write_json(own_tiny_bert / "config_sentence_transformers.json", {"prompts": prompts})
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


def test_limit_without_room_for_a_text_is_refused(own_tiny_bert):
    write_json(own_tiny_bert / "sentence_bert_config.json", {"max_seq_length": 2})
    with pytest.raises(CheckpointError, match="a query has 2 tokens before its text, of at most 2"):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


@pytest.mark.timeout(60)
def test_tokenizer_that_makes_much_of_little_is_refused(own_tiny_bert):
    tokenizer = json.loads((own_tiny_bert / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 1_000_000}
    write_json(own_tiny_bert / "tokenizer.json", tokenizer)
    with pytest.raises(CheckpointError, match=r"normalizer of tokenizer\.json makes 2000019 characters of 21"):
        plan_export(Checkpoint(own_tiny_bert), "fp32")


def test_tokenizer_of_a_larger_vocabulary_is_refused(own_tiny_bert):
    tokenizer = json.loads((own_tiny_bert / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 192
    write_json(own_tiny_bert / "tokenizer.json", tokenizer)
    with pytest.raises(CheckpointError, match="gives 'beyond' the id 192, but the token embeddings have only 192 rows"):
        plan_export(Checkpoint(own_tiny_bert), "fp32")
