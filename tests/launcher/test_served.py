from pathlib import Path

import pytest

from export.repository import read_config
from launcher.published import PublishedModel, read_published
from launcher.served import ServedFolder, ServedModel, find_place, name_steps
from tests.launcher.test_published import STEPS, write_model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> ServedFolder:
    folder = ServedFolder(tmp_path / "served", repository)
    folder.clear()
    return folder


def read_model(repository: Path) -> PublishedModel:
    published = read_published(repository)
    assert published is not None
    return published["org/m"]


def put(folder: ServedFolder, repository: Path) -> ServedModel:
    published = read_model(repository)
    model = ServedModel(published, name_steps(published, folder.list_names()))
    folder.stage(model)
    folder.add_steps(model.steps.values())
    folder.put_entry("m_text")
    folder.clear_staging()
    return model


def test_the_first_model_keeps_its_names_and_the_next_gets_others(folder: ServedFolder, repository: Path) -> None:
    first, second = put(folder, repository), put(folder, repository)
    assert first.ensembles == {"m_text": STEPS}
    assert second.ensembles == {"m_text": ("m_preprocess_text_2", "m_embedder_2")}
    assert folder.list_names() == {"m_text", *STEPS, *second.steps.values()}
    steps = read_config(folder.path / "m_text").ensemble_scheduling.step
    assert tuple(step.model_name for step in steps) == second.ensembles["m_text"]
    assert read_config(folder.path / "m_embedder_2").name == "m_embedder_2"
    folder.remove(first.steps.values())
    assert put(folder, repository).ensembles == {"m_text": STEPS}


def test_an_ensemble_serves_only_the_version_of_its_configuration(folder: ServedFolder, repository: Path) -> None:
    put(folder, repository)
    policy = read_config(folder.path / "m_text").version_policy.specific
    assert [path.name for path in (folder.path / "m_text").iterdir() if path.is_dir()] == [str(0xF00D)]
    assert list(policy.versions) == [0xF00D]


def test_files_outlive_their_model_in_the_repository(folder: ServedFolder, repository: Path) -> None:
    put(folder, repository)
    (repository / "m_embedder" / "1" / "model.onnx").unlink()
    assert (folder.path / "m_embedder" / "1" / "model.onnx").read_bytes() == b"graph"


def test_where_hard_links_are_impossible_there_are_copies(
    folder: ServedFolder, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    put(folder, repository)
    (repository / "m_embedder" / "1" / "model.onnx").write_bytes(b"another")
    assert (folder.path / "m_embedder" / "1" / "model.onnx").read_bytes() == b"graph"


def test_the_folder_is_where_hard_links_are_possible(repository: Path, tmp_path: Path) -> None:
    assert find_place(tmp_path, repository, 8001) == tmp_path / "served_models_8001"
    elsewhere = Path("/dev/shm")
    assert elsewhere.stat().st_dev != repository.stat().st_dev
    assert find_place(elsewhere, repository, 8001) == tmp_path / ".repository.served-8001"


def test_nothing_is_left_of_a_deleted_folder(folder: ServedFolder, repository: Path, tmp_path: Path) -> None:
    put(folder, repository)
    folder.delete()
    assert list(tmp_path.iterdir()) == [repository]


def test_an_entry_can_be_given_its_old_content_back(folder: ServedFolder, repository: Path) -> None:
    put(folder, repository)
    before = read_config(folder.path / "m_text")
    published = read_model(repository)
    folder.stage(ServedModel(published, name_steps(published, folder.list_names())))
    old = folder.put_entry("m_text")
    assert read_config(folder.path / "m_text") != before
    assert old is not None
    folder.point_entry("m_text", old)
    folder.clear_staging()
    assert read_config(folder.path / "m_text") == before
