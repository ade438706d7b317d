import json
from pathlib import Path

import pytest

from export.manifest import list_files
from export.repository import ModelFolders
from export.serving import ServedModel
from export.spec import Identity, ModelSpec
from export.verify import Verification, verify_each

SPEC = ModelSpec("bert", 8, 100, 16, 16, "mean")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the usual layout and a graph of a few bytes."""
    folders = ModelFolders(tmp_path, "org/m")
    (folders.version("embedder") / "model.onnx").write_bytes(b"graph")
    folders.write_tokenizer(b"{}", SPEC)
    folders.write_warmup(SPEC)
    write_manifest(folders, [vars(file) for file in list_files(tmp_path)])
    return tmp_path


def write_manifest(folders: ModelFolders, files: list[dict]) -> None:
    manifest = json.dumps({"public_id": folders.public_id, "files": files})
    folders.write_configs(ServedModel(Identity(folders.public_id, manifest=manifest), SPEC))


def read_reason(repository: Path) -> str:
    """Return why the only model is damaged."""
    found = verify_each(repository)
    assert not found.intact
    [reason] = found.damaged.values()
    return reason


def test_untouched_repository_passes(repository):
    assert list(verify_each(repository).intact) == ["org/m"]


def test_manifest_lists_every_file_but_configs(repository):
    assert [file.path for file in list_files(repository)] == [
        "m_embedder/1/model.onnx", "m_embedder/warmup/one_sequence_of_8", "m_preprocess_text/1/tokenizer.json",
        "m_preprocess_text/warmup/one_text",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"grapH", b"graph\0", b""])
def test_changed_file_is_named(repository, content):
    (repository / "m_embedder" / "1" / "model.onnx").write_bytes(content)
    assert "m_embedder/1/model.onnx has" in read_reason(repository)


def test_missing_file_is_named(repository):
    (repository / "m_embedder" / "1" / "model.onnx").unlink()
    assert "m_embedder/1/model.onnx is missing" in read_reason(repository)


def test_config_may_be_edited(repository):
    config = repository / "m_embedder" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 64", "max_batch_size: 8"))
    assert list(verify_each(repository).intact) == ["org/m"]


def test_models_without_a_manifest_are_skipped(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.pbtxt").write_text('backend: "python"')
    assert verify_each(tmp_path) == Verification({}, {})


def test_unreadable_config_is_named(repository):
    (repository / "m_text" / "config.pbtxt").write_text("} nonsense")
    assert "m_text/config.pbtxt cannot be read" in read_reason(repository)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd"])
def test_manifest_that_names_a_file_outside_the_repository_is_refused(repository, path):
    write_manifest(ModelFolders(repository, "org/m"), [{"path": path, "bytes": 1, "sha256": ""}])
    assert "outside it" in read_reason(repository)


def test_each_model_is_verified_by_itself(repository):
    folders = ModelFolders(repository, "org/other")
    (folders.version("embedder") / "model.onnx").write_bytes(b"graph")
    write_manifest(folders, [{"path": "other_embedder/1/model.onnx", "bytes": 5, "sha256": "0" * 64}])
    (repository / "unreadable").mkdir()
    (repository / "unreadable" / "config.pbtxt").write_text("} nonsense")
    found = verify_each(repository)
    assert list(found.intact) == ["org/m"]
    assert found.damaged.keys() == {"org/other", "unreadable"}
    assert "other_embedder/1/model.onnx has sha256" in found.damaged["org/other"]
