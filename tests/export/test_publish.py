"""Publication is atomic, wherever the process is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import ModelExistsError, RepositoryError
from export.publish import Staging, recover
from tests.export import killed_publisher
from tests.export.killed_publisher import OLD, STEPS, publish
from tests.export.repository_tree import list_tree

ANY_CALL = ""
FIRST_MOVE = r"os\.rename .*/models/"  # the publication is decided and nothing has been moved
MAX_KILL_POINTS = 200


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, bytes]:
    """The repository after an uninterrupted publication."""
    folder = tmp_path_factory.mktemp("finished") / "repository"
    publish(folder)
    return list_tree(folder)


def die(repository: Path, action: str, at: int = 1, pattern: str = ANY_CALL) -> bool:
    """Run an action that kills itself, and return whether it was killed before it finished."""
    command = [sys.executable, killed_publisher.__file__, str(repository), str(at), pattern, action]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def beside(repository: Path) -> list[str]:
    return [path.name for path in repository.parent.iterdir() if path != repository]


def test_publication_leaves_only_the_models(repository):
    publish(repository)
    assert {path.name for path in repository.iterdir()} == set(STEPS)
    assert beside(repository) == []


def test_failed_export_leaves_nothing(repository):
    with pytest.raises(ZeroDivisionError), Staging(repository) as staging:
        (staging.models / "m_text").mkdir()
        raise ZeroDivisionError
    assert list(repository.parent.iterdir()) == []


def test_existing_model_is_unchanged(repository):
    publish(repository, content="old")
    before = list_tree(repository)
    with pytest.raises(ModelExistsError, match="already holds m_preprocess_text"):
        publish(repository)
    assert list_tree(repository) == before
    assert beside(repository) == []


def test_replacement_removes_all_old_models(repository, finished):
    publish(repository, OLD, content="old")
    publish(repository, retire=tuple(reversed(OLD)))
    assert list_tree(repository) == finished
    assert beside(repository) == []


@pytest.mark.slow
@pytest.mark.parametrize("action", ["publish", "replace"])
def test_kill_at_any_point_leaves_the_old_or_the_new_repository(tmp_path, finished, action):
    outcomes = set()
    for point in range(1, MAX_KILL_POINTS):
        repository = tmp_path / str(point) / "repository"
        if action == "replace":
            publish(repository, OLD, content="old")
        else:
            repository.mkdir(parents=True)
        old = list_tree(repository)
        killed = die(repository, action, at=point)
        recover(repository)
        assert list_tree(repository) in (old, finished), f"killed at point {point}"
        assert beside(repository) == []
        outcomes.add(list_tree(repository) == finished)
        if not killed:
            break
    assert not killed
    assert outcomes == {False, True}


@pytest.mark.slow
def test_recovery_killed_at_any_point_is_finished_by_the_next_recovery(tmp_path, finished):
    for point in range(1, MAX_KILL_POINTS):
        repository = tmp_path / str(point) / "repository"
        publish(repository, OLD, content="old")
        assert die(repository, "replace", pattern=FIRST_MOVE)
        killed = die(repository, "recover", at=point)
        recover(repository)
        assert list_tree(repository) == finished, f"killed at point {point}"
        assert beside(repository) == []
        if not killed:
            break
    assert not killed
    assert point > 3


def test_recovery_names_the_models_that_it_moves(repository):
    assert die(repository, "publish", at=2, pattern=FIRST_MOVE)
    assert recover(repository) == STEPS[1:]
    assert recover(repository) == ()


def test_recovery_ignores_a_running_export(repository):
    with Staging(repository) as staging:
        (staging.models / "m_text").mkdir()
        assert recover(repository) == ()
        staging.publish(["m_text"])
    assert [path.name for path in repository.iterdir()] == ["m_text"]


def test_recovery_yields_to_a_model_published_in_the_meantime(repository):
    assert die(repository, "publish", pattern=FIRST_MOVE)
    publish(repository, content="meanwhile")
    before = list_tree(repository)
    assert recover(repository) == ()
    assert list_tree(repository) == before
    assert beside(repository) == []


def test_repository_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RepositoryError, match="cannot be written"), Staging(tmp_path / "file" / "repository"):
        pass


def test_import_needs_no_library_that_only_exports_need():
    heavy = ("torch", "transformers", "onnx_ir", "onnxruntime", "safetensors", "huggingface_hub")
    script = f"import sys, export.publish, export.verify; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=killed_publisher.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def stage_as_if_killed(repository: Path, journal: str) -> Path:
    """Write a staging folder with a model as a killed export leaves it."""
    folder = repository.parent / f".{repository.name}.staging-killed"
    (folder / "models" / "m_text").mkdir(parents=True)
    (folder / "journal.json").write_text(journal)
    return folder


@pytest.mark.parametrize(
    "journal",
    [
        '{"retire": [], "publish": ["../../outside"]}',
        '{"retire": ["/etc"], "publish": []}',
        '{"retire": [], "publish": [".."]}',
        '{"retire": [], "publish": [1]}',
        '{"retire": 1, "publish": []}',
        '{"retire": []}',
        "[]",
        "{",
        "",
    ],
)
def test_journal_that_names_anything_but_models_is_refused(repository, journal):
    folder = stage_as_if_killed(repository, journal)
    with pytest.raises(RepositoryError, match=r"journal\.json is damaged: delete"):
        recover(repository)
    assert (folder / "models" / "m_text").is_dir()
    assert not repository.exists()


def test_staging_folder_that_is_a_link_is_left_alone(repository, tmp_path):
    folder = stage_as_if_killed(repository, '{"retire": [], "publish": ["m_text"]}')
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert recover(repository) == ()
    assert (tmp_path / "elsewhere" / "models" / "m_text").is_dir()


def test_staging_folder_of_another_user_is_left_alone(repository, monkeypatch):
    """In a folder that others may write, anybody could publish a model otherwise."""
    folder = stage_as_if_killed(repository, '{"retire": [], "publish": ["m_text"]}')
    monkeypatch.setattr("export.publish.os.geteuid", lambda: folder.stat().st_uid + 1)
    assert recover(repository) == ()
    monkeypatch.undo()
    repository.mkdir()
    assert recover(repository) == ("m_text",)
