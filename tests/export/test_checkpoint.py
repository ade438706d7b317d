import json

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


def test_integer_tensors_are_not_taken_for_weights(tmp_path):
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
def test_index_that_names_no_shards_of_its_folder_is_refused(tmp_path, index):
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
