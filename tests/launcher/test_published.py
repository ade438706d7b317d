import json
import os
from pathlib import Path

import pytest

from export.publish import Staging
from export.repository import ModelFolders
from export.serving import ServedModel
from export.spec import Identity, ModelSpec
from launcher.published import read_published

SPEC = ModelSpec("bert", 8, 100, 16, 16, "mean")
STEPS = ("m_preprocess_text", "m_embedder")


def write_model(folder: Path, public_id: str = "org/m", fingerprint: str = "f00d") -> None:
    folders = ModelFolders(folder, public_id)
    (folders.version("embedder") / "model.onnx").write_bytes(b"graph")
    manifest = json.dumps({"public_id": public_id, "max_tokens": 16, "files": []})
    folders.write_configs(ServedModel(Identity(public_id, manifest=manifest, fingerprint=fingerprint), SPEC))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path / "repository")
    return tmp_path / "repository"


def test_a_models_folders_are_found_by_its_ensembles(repository: Path) -> None:
    (repository / "foreign").mkdir()
    (repository / "foreign" / "config.pbtxt").write_text('backend: "python"')
    published = read_published(repository)
    assert published is not None and published.keys() == {"org/m", "foreign"}
    assert published["org/m"].entries == {"m_text": STEPS}
    assert published["foreign"].entries == {"foreign": ()}
    assert published["org/m"].is_readable and published == read_published(repository)


@pytest.mark.parametrize("path", ["m_embedder/1/model.onnx", "m_embedder/config.pbtxt", "m_text/config.pbtxt"])
def test_a_change_of_any_file_is_another_model(repository: Path, path: str) -> None:
    before = read_published(repository)
    os.utime(repository / path, ns=(1, 1))
    assert read_published(repository) != before


def test_a_publication_is_seen_when_it_is_complete(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, during = read_published(repository), []
    rename = Path.rename

    def rename_and_look(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if repository in (path.parent, Path(target).parent):
            during.append(read_published(repository))
        return moved

    with Staging(repository) as staging:
        write_model(staging.models, fingerprint="beef")
        monkeypatch.setattr(Path, "rename", rename_and_look)
        staging.publish((*STEPS, "m_text"), retire=("m_text", *reversed(STEPS)))
    after = read_published(repository)
    assert during == [None] * 6
    assert after is not None and before is not None and after.keys() == before.keys() and after != before


def test_an_unreadable_configuration_is_listed_as_such(repository: Path) -> None:
    (repository / "m_embedder" / "config.pbtxt").write_text("{")
    published = read_published(repository)
    assert published is not None and not published["org/m"].is_readable
