"""Every text architecture but BERT: graphs compared with transformers, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.architectures import plan_export
from export.architectures.sentence_transformers import read_sentence_embedding
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.sample_texts import QUALITY_TEXTS, SAMPLE_TEXTS
from export.validation import require_agreement, run_graph
from export.validation.text import embed_with_transformers
from tests.export.tiny_bert import write_json
from tests.export.tiny_text_models import WRITERS, write_gemma3, write_qwen3

LOCAL = {"gemma3_text", "modernbert"}
"""Model types with layers that attend to near tokens only."""

MIXED = [3, 40, 0, 1, 300, 40, 17]


@pytest.fixture(scope="module", params=WRITERS)
def checkpoint(request, tmp_path_factory) -> Path:
    """Return a folder that tests only read."""
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | changes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_graph_agrees_with_transformers(checkpoint, precision, tmp_path):
    plan = plan_export(Checkpoint(checkpoint), precision)
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    require_agreement(agreement, precision)
    assert agreement.samples == len(SAMPLE_TEXTS if precision == "fp32" else QUALITY_TEXTS)
    if precision == "fp32":
        assert agreement.max_abs_error < 2e-6


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "tensorrt-dense"])
def test_embeddings_of_a_batch_of_mixed_lengths_equal_transformers(checkpoint, target, tmp_path):
    files = Checkpoint(checkpoint)
    if target == "tensorrt" and files.config["model_type"] in LOCAL:
        pytest.skip("refused, as another test shows")
    plan = plan_export(files, "fp32", target)
    graph = save_model(plan.graphs["embedder"](), tmp_path)
    ids = np.random.default_rng(0).integers(4, 190, sum(MIXED))
    lengths = np.array(MIXED, np.int32)
    found = run_graph(graph, target, "embeddings", {"input_ids": ids, "sequence_lengths": lengths})
    sequences = [sequence.tolist() for sequence in np.split(ids, np.cumsum(MIXED)[:-1])]
    head = read_sentence_embedding(files).head
    is_bidirectional = files.config["model_type"] == "llama_bidirec"
    expected = embed_with_transformers(files, [ids for ids in sequences if ids], head, is_bidirectional)
    is_empty = np.array(MIXED) == 0
    np.testing.assert_allclose(found[~is_empty], expected, atol=2e-6)
    assert np.isnan(found[is_empty]).all()


def test_local_attention_is_refused_for_tensorrt(checkpoint):
    files = Checkpoint(checkpoint)
    build = plan_export(files, "fp16", "tensorrt").graphs["embedder"]
    if files.config["model_type"] in LOCAL:
        with pytest.raises(ValueError, match="local attention has no form for TensorRT yet: export with --target cuda"):
            build()
    else:
        assert build().graph


def test_the_spec_comes_from_the_checkpoint(checkpoint):
    plan = plan_export(Checkpoint(checkpoint), "fp32")
    expected = {
        "llama_bidirec": ("mean", 32, "", ""),
        "qwen3": ("last", 32, "Instruct: find\nQuery:", ""),
        "gemma3_text": ("mean", 24, "", ""),
        "modernbert": ("cls", 32, "", ""),
    }[plan.spec.architecture]
    spec = plan.spec
    assert (spec.pooling, spec.dimensions, spec.query_prefix, spec.passage_prefix) == expected
    assert (spec.vocab_size, spec.max_tokens, spec.modalities) == (192, 600, ("text",))


def test_names_of_tensors_may_begin_with_the_name_of_the_model(own_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(own_checkpoint / "model.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, own_checkpoint / "model.safetensors")
    plan = plan_export(Checkpoint(own_checkpoint), "fp32")
    assert plan.spec.vocab_size == 192
    save_model(plan.graphs["embedder"](), tmp_path)


def test_causal_gemma_attends_to_earlier_tokens_only(tmp_path):
    folder = write_gemma3(tmp_path / "causal", use_bidirectional_attention=False)
    plan = plan_export(Checkpoint(folder), "fp32")
    agreement = plan.compare({"embedder": save_model(plan.graphs["embedder"](), tmp_path)})
    assert agreement.max_abs_error < 2e-6


def test_bidirectional_llama_says_in_its_config_how_it_pools(tmp_path):
    folder = WRITERS["llama_bidirec"](tmp_path)
    (folder / "modules.json").unlink()
    change_config(folder, pooling="last")
    assert plan_export(Checkpoint(folder), "fp32").spec.pooling == "last"
    change_config(folder, pooling="weighted_avg")
    with pytest.raises(CheckpointError, match="pooling 'weighted_avg' is not supported"):
        plan_export(Checkpoint(folder), "fp32")


def test_a_text_generator_is_no_embedder(tmp_path):
    folder = write_qwen3(tmp_path)
    (folder / "modules.json").unlink()
    with pytest.raises(CheckpointError, match=r"is a text generator \(qwen3\) without modules.json"):
        plan_export(Checkpoint(folder), "fp32")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn' is not supported"),
        ("qwen3", {"use_sliding_window": True, "layer_types": None}, "use_sliding_window"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types must name"),
        ("qwen3", {"hidden_act": "relu"}, "activation 'relu' is not supported for qwen3; only 'silu' is"),
        ("qwen3", {"head_dim": 15}, "head_dim is 15, not an even number"),
        ("qwen3", {"num_key_value_heads": 3}, "num_attention_heads is 4, not a multiple of num_key_value_heads"),
        ("gemma3_text", {"query_pre_attn_scalar": 8}, "query_pre_attn_scalar is 8; only head_dim"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is not supported"),
        ("gemma3_text", {"sliding_window": 0}, "sliding_window is 0, not a positive integer"),
        ("modernbert", {"local_attention": 0}, "local_attention is 0, not a positive integer"),
        ("modernbert", {"hidden_activation": "mish"}, "activation 'mish' is not supported"),
        ("modernbert", {"global_rope_theta": -1}, "global_rope_theta is -1, not a number between"),
    ],
)
def test_unsupported_options_are_refused_by_name(kind, changes, message, tmp_path):
    folder = WRITERS[kind](tmp_path)
    change_config(folder, **changes)
    with pytest.raises((CheckpointError, ValueError), match=message):
        plan_export(Checkpoint(folder), "fp32").graphs["embedder"]()
