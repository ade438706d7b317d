import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, CheckpointFileMissingError
from tests.export.tiny_bert import write_tiny_bert

VALUES = np.array([[1.0, -2.5, 0.15625]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_tensors_are_read_as_float32_whatever_their_stored_type(tmp_path, dtype):
    save_file({"w": VALUES.astype(dtype)}, tmp_path / "model.safetensors")
    weights = Checkpoint(tmp_path).weights
    assert weights.read("w").dtype == np.float32
    np.testing.assert_array_equal(weights.read("w"), VALUES)
    assert weights.shape("w") == (1, 3)
    assert weights.parameter_count == 3


def test_integer_tensors_are_refused(tmp_path):
    save_file({"position_ids": np.arange(4)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="position_ids is stored as I64"):
        Checkpoint(tmp_path).weights.read("position_ids")


def test_absent_tensor_is_named(tiny_bert):
    with pytest.raises(CheckpointError, match="has no tensor lm_head"):
        Checkpoint(tiny_bert).weights.read("lm_head")


def test_shards_read_like_one_file(tiny_bert, tmp_path):
    write_tiny_bert(tmp_path / "sharded", max_shard_size="20KB")
    sharded, single = Checkpoint(tmp_path / "sharded").weights, Checkpoint(tiny_bert).weights
    assert len(sharded.paths) > 1
    assert sharded.names == single.names
    for name in single.names:
        np.testing.assert_array_equal(sharded.read(name), single.read(name))


def test_missing_shard_is_named(tmp_path):
    write_tiny_bert(tmp_path / "sharded", max_shard_size="20KB")
    shard = Checkpoint(tmp_path / "sharded").weights.paths[1]
    shard.unlink()
    with pytest.raises(CheckpointFileMissingError, match=shard.name):
        _ = Checkpoint(tmp_path / "sharded").weights


@pytest.mark.parametrize("index", ["{}", "[]", "{", '{"weight_map": {"w": "../elsewhere.safetensors"}}'])
def test_index_without_shards_of_its_folder_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        _ = Checkpoint(tmp_path).weights


def test_absent_json_is_none_and_broken_json_is_refused(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text(json.dumps([]))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.json("modules.json") is None
    with pytest.raises(CheckpointError, match=r"broken\.json is not valid JSON"):
        checkpoint.json("broken.json")
    with pytest.raises(CheckpointError, match=r"list\.json is not a JSON object"):
        checkpoint.require_json("list.json")


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    replace_by_link(path, path)


def replace_by_broken_link(path: Path) -> None:
    replace_by_link(path, path.with_name("nowhere"))


READERS = {
    "config.json": lambda checkpoint: checkpoint.config,
    "tokenizer.json": lambda checkpoint: checkpoint.tokenizer,
    "model.safetensors": lambda checkpoint: checkpoint.weights,
    "1_Pooling/config.json": lambda checkpoint: checkpoint.json("1_Pooling/config.json"),
    "README.md": lambda checkpoint: checkpoint.text("README.md"),
}


@pytest.fixture(params=READERS)
def name(request) -> str:
    return request.param


def test_link_out_of_the_checkpoint_is_refused(own_tiny_bert, tmp_path, name):
    outside = tmp_path / "outside"
    (own_tiny_bert / name).rename(outside)
    (own_tiny_bert / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match=rf"{name} is a link out of the checkpoint, to {outside}"):
        READERS[name](Checkpoint(own_tiny_bert))


def test_folder_that_is_a_link_out_of_the_checkpoint_is_refused(own_tiny_bert, tmp_path):
    (own_tiny_bert / "1_Pooling").rename(tmp_path / "outside")
    (own_tiny_bert / "1_Pooling").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="is a link out of the checkpoint"):
        Checkpoint(own_tiny_bert).json("1_Pooling/config.json")


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.json"])
def test_path_out_of_the_checkpoint_is_refused(own_tiny_bert, path):
    (own_tiny_bert.parent / "outside.json").write_text("{}")
    with pytest.raises(CheckpointError, match="out of the checkpoint"):
        Checkpoint(own_tiny_bert).json(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (replace_by_pipe, "is not a regular file"),
        (replace_by_folder, "is not a regular file"),
        (replace_by_broken_link, "is a broken link"),
        (replace_by_loop, "cannot be read"),
    ],
)
def test_anything_but_a_regular_file_is_refused(own_tiny_bert, name, replace, message):
    replace(own_tiny_bert / name)
    with pytest.raises(CheckpointError, match=rf"{name} {message}"):
        READERS[name](Checkpoint(own_tiny_bert))


@pytest.mark.timeout(20)
def test_shard_that_is_not_a_regular_file_is_refused(tmp_path):
    folder = write_tiny_bert(tmp_path / "sharded", max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    replace_by_pipe(shard)
    with pytest.raises(CheckpointError, match=f"{shard.name} is not a regular file"):
        _ = Checkpoint(folder).weights


def test_link_inside_the_checkpoint_is_followed(own_tiny_bert, name):
    (own_tiny_bert / name).rename(own_tiny_bert / "elsewhere")
    (own_tiny_bert / name).symlink_to(own_tiny_bert / "elsewhere")
    assert READERS[name](Checkpoint(own_tiny_bert)) is not None


def link_snapshot(checkpoint: Path, cache: Path, blobs_of: str) -> Path:
    """Move a checkpoint to the layout of the model hub's cache: links to blobs."""
    snapshot, blobs = cache / "models--org--tiny" / "snapshots" / "0123abc", cache / blobs_of / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(path for path in checkpoint.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(checkpoint)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_links_of_the_hubs_cache_are_followed(own_tiny_bert, tmp_path, name):
    snapshot = link_snapshot(own_tiny_bert, tmp_path / "hub", "models--org--tiny")
    assert READERS[name](Checkpoint(snapshot)) is not None


def test_link_to_another_model_of_the_hubs_cache_is_refused(own_tiny_bert, tmp_path, name):
    snapshot = link_snapshot(own_tiny_bert, tmp_path / "hub", "models--org--other")
    with pytest.raises(CheckpointError, match="is a link out of the checkpoint"):
        READERS[name](Checkpoint(snapshot))


@pytest.mark.parametrize(
    ("name", "max_bytes"), [("config.json", 16 << 20), ("tokenizer.json", 256 << 20), ("README.md", 1 << 20)]
)
def test_file_above_its_maximum_size_is_refused(own_tiny_bert, name, max_bytes):
    with (own_tiny_bert / name).open("r+b") as file:
        file.truncate(max_bytes + 1)  # sparse
    with pytest.raises(CheckpointError, match=f"{name} has {max_bytes + 1} bytes; at most {max_bytes} are read"):
        READERS[name](Checkpoint(own_tiny_bert))


def test_deeply_nested_json_is_refused(own_tiny_bert):
    (own_tiny_bert / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        _ = Checkpoint(own_tiny_bert).config
