import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.sample_texts import SAMPLE_TEXTS
from export.tiny_checkpoint import write
from export.tiny_checkpoint.__main__ import main
from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from export.validation import ScoreAgreement
from tests.export.golden_inputs import CHECKPOINT


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_checkpoint(tmp_path / name, Widths(), seed=seed)
    assert files_of(tmp_path / "first") == files_of(tmp_path / "again")
    first, other = (Checkpoint(tmp_path / name).weights for name in ("first", "other"))
    assert not np.array_equal(first.read("mlp1.1.weight"), other.read("mlp1.1.weight"))


def test_tensors_are_those_of_the_reference_checkpoint(tmp_path):
    widths = Widths(
        hidden_size=96, layers=3, heads=6, kv_heads=2, intermediate_size=208, vocab_size=1544,
        vision_hidden_size=64, vision_layers=2, vision_heads=4, vision_intermediate_size=112,
    )  # fmt: skip
    write_checkpoint(tmp_path, widths)
    ours, reference = Checkpoint(tmp_path).weights, Checkpoint(CHECKPOINT).weights
    used = {name for name in reference.names if not name.startswith("vision_model.head.")}
    assert {name: ours.shape(name) for name in ours.names} == {name: reference.shape(name) for name in used}


@pytest.mark.parametrize(
    ("widths", "dtype"),
    [
        (Widths(hidden_size=64, layers=1, vision_layers=1), "bfloat16"),
        (Widths(hidden_size=60, heads=6, kv_heads=6, vision_hidden_size=72, vision_heads=4), "float32"),
        (Widths(hidden_size=96, heads=12, kv_heads=1, layers=3, intermediate_size=100, vision_heads=1), "float32"),
    ],
    ids=["bfloat16", "as many key heads as query heads", "one key head"],
)
def test_exported_graphs_of_any_widths_agree_with_the_reference(tmp_path, widths, dtype):
    write_checkpoint(tmp_path / "checkpoint", widths, dtype=dtype)
    plan = plan_export(Checkpoint(tmp_path / "checkpoint"), "fp32")
    files = {}
    for step, build in plan.graphs.items():
        (tmp_path / step).mkdir()
        files[step] = save_model(build(), tmp_path / step)
    assert plan.compare(files).max_abs_error < 5e-6


def test_large_checkpoints_are_split_into_shards(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "whole", Widths())
    monkeypatch.setattr(write, "MAX_SHARD_BYTES", 300_000)
    write_checkpoint(tmp_path / "cut", Widths())
    whole, cut = Checkpoint(tmp_path / "whole").weights, Checkpoint(tmp_path / "cut").weights
    assert len(whole.paths) == 1 and len(cut.paths) > 3
    assert cut.names == whole.names
    for name in whole.names:
        np.testing.assert_array_equal(cut.read(name), whole.read(name))


def test_text_begins_with_bos_and_special_tokens_in_it_can_be_ordinary_text(tmp_path):
    write_checkpoint(tmp_path, Widths())
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    image_token = json.loads((tmp_path / "config.json").read_text())["img_context_token_id"]
    assert tokenizer.encode("<IMG_CONTEXT>").ids[1:] == [image_token]
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode("Größe 12345 <IMG_CONTEXT> 漢字").ids
    assert ids[0] == tokenizer.token_to_id("<|begin_of_text|>")
    assert image_token not in ids
    assert tokenizer.decode(ids) == "Größe 12345 <IMG_CONTEXT> 漢字"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "3"], "hidden_size must be a multiple of heads"),
        (["--kv-heads", "3"], "heads must be a multiple of kv_heads"),
        (["--hidden-size", "12"], "even"),
        (["--vocab-size", "100"], "vocabulary is too small"),
        (["--vocab-size", "-1"], "vocab_size must be at least 1"),
        (["--heads", "0"], "heads must be at least 1"),
        (["--layers", "0"], "layers must be at least 1"),
        (["--hidden-size", "-4"], "hidden_size must be at least 1"),
        (["--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_impossible_widths_are_refused_in_one_line(arguments, message, tmp_path, capsys):
    assert main([str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_widths_are_set_by_argument(tmp_path):
    assert main([str(tmp_path), "--hidden-size", "64", "--layers", "1", "--vision-layers", "1", "--seed", "7"]) == 0
    config = Checkpoint(tmp_path).config
    assert (config["llm_config"]["hidden_size"], config["vision_config"]["num_hidden_layers"]) == (64, 1)
    assert "seed 7" in (tmp_path / "README.md").read_text()


def test_a_reranker_has_the_tensors_of_the_embedder_and_a_score(tmp_path):
    options = ["--hidden-size", "64", "--layers", "1", "--vision-layers", "1"]
    assert main([str(tmp_path / "embedder"), *options]) == 0
    assert main([str(tmp_path / "reranker"), "--reranker", *options]) == 0
    embedder, reranker = (Checkpoint(tmp_path / name) for name in ("embedder", "reranker"))
    assert reranker.weights.names == {f"model.{name}" for name in embedder.weights.names} | {"score.weight"}
    assert reranker.weights.shape("score.weight") == (1, 64)
    assert "llama-nemotron-rerank-vl-1b-v2" in (tmp_path / "reranker" / "README.md").read_text()


@pytest.mark.parametrize("layout", ["published", "unprefixed"])
def test_exported_rerankers_of_any_widths_agree_with_the_reference(tmp_path, layout):
    widths = Widths(hidden_size=60, heads=6, kv_heads=3, vision_hidden_size=72, vision_heads=4)
    write_checkpoint(tmp_path / "checkpoint", widths, reranker=True)
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    config["temperature"] = 0.25
    if layout == "unprefixed":
        config["model_type"] = "llama_nemotron_vl"
        path = tmp_path / "checkpoint" / "model.safetensors"
        save_file({name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    plan = plan_export(Checkpoint(tmp_path / "checkpoint"), "fp32")
    assert (plan.spec.task, plan.spec.modalities) == ("rank", ("text", "image"))
    files = {}
    for step, build in plan.graphs.items():
        (tmp_path / step).mkdir()
        files[step] = save_model(build(), tmp_path / step)
    agreement = plan.compare(files)
    assert isinstance(agreement, ScoreAgreement)
    assert agreement.max_abs_error < 5e-6 * max(1, agreement.max_abs_score)
    assert agreement.samples == len(SAMPLE_TEXTS) + 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature is 0, not a number between 0 and"),
        ({"prompt_template": "v2"}, "prompt_template 'v2' is not supported; only 'v1' is"),
        ({"rerank_max_length": -1}, "rerank_max_length is -1, not a positive integer"),
        ({"rerank_max_length": 270}, "a short query takes .* tokens of at most 270: no document would fit"),
    ],
)
def test_what_a_reranker_does_not_support_is_refused_by_name(tmp_path, changes, message):
    write_checkpoint(tmp_path, Widths(hidden_size=64, layers=1, vision_layers=1), reranker=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(tmp_path), "fp32")
