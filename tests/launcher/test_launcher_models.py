import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from export.repository import ModelFolders
from export.serving import ServedModel
from export.spec import Identity, ModelSpec
from launcher.errors import EmptyRepositoryError, LauncherError
from launcher.model_control import ModelControl
from launcher.models import find_differences, prepare_repository, public_id, run_module
from launcher.settings import STAND_IN, LauncherSettings


def test_a_repository_without_models_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptyRepositoryError, match=f"{tmp_path} contains no model"):
        prepare_repository(LauncherSettings(repository=tmp_path))


def test_the_public_id_is_the_hub_id_or_the_folders_name(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    assert public_id(STAND_IN) == STAND_IN
    assert public_id("a/b") == "a/b"
    assert public_id(str(tmp_path / "my-model")) == "my-model"


def test_a_failing_module_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LauncherError, match=r"python -m launcher\.no_such_module failed"):
        run_module("launcher.no_such_module")
    assert "No module named launcher.no_such_module" in capfd.readouterr().err


def test_exports_send_no_telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fail_with_telemetry.py").write_text("import os\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run_module("fail_with_telemetry")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two models, `org/good` and `org/bad`."""
    folder = tmp_path / "repository"
    spec = ModelSpec("bert", 8, 100, 16, 16, "mean")
    for name in ("org/good", "org/bad"):
        folders = ModelFolders(folder, name)
        graph = folders.version("embedder") / "model.onnx"
        graph.write_bytes(b"graph")
        entry = {"path": str(graph.relative_to(folder)), "bytes": 5, "sha256": hashlib.sha256(b"graph").hexdigest()}
        manifest = json.dumps({"public_id": name, "max_tokens": 16, "files": [entry]})
        folders.write_configs(ServedModel(Identity(name, manifest=manifest), spec))
    return folder


def test_an_intact_repository_is_served_as_a_whole(repository: Path, tmp_path: Path) -> None:
    models = prepare_repository(LauncherSettings(repository=repository, build_dir=tmp_path))
    assert models.repository == repository
    assert (models.limits, models.damaged) == ({"org/bad": 16, "org/good": 16}, {})
    assert models.published.keys() == {"org/bad", "org/good"}
    assert models.published["org/good"].entries == {"good_text": ("good_preprocess_text", "good_embedder")}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"grapH")], ids=["missing", "changed"])
def test_the_steps_of_a_damaged_model_are_kept_from_triton_and_its_ensembles_are_not(
    repository: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(repository / "bad_embedder" / "1" / "model.onnx")
    models = prepare_repository(LauncherSettings(repository=repository, build_dir=tmp_path))
    assert "bad_embedder/1/model.onnx" in models.damaged["org/bad"]
    served = tmp_path / "served"
    control = ModelControl("127.0.0.1:1", repository, served)
    control.fill(models.published, models.damaged)
    assert control.list_unavailable() == {"org/bad", "org/good"}
    control.note_loaded({"good_text"})
    assert control.list_ensembles() == {"good_text": ("good_preprocess_text", "good_embedder")}
    assert {path.name for path in served.iterdir()} == {
        "good_text",
        "good_preprocess_text",
        "good_embedder",
        "bad_text",
    }
    assert (served / "good_embedder" / "1" / "model.onnx").read_bytes() == b"graph"


def test_a_repository_of_damaged_models_is_an_error(repository: Path, tmp_path: Path) -> None:
    for model in ("good", "bad"):
        (repository / f"{model}_embedder" / "1" / "model.onnx").unlink()
    with pytest.raises(LauncherError, match=r"model\.onnx is missing"):
        prepare_repository(LauncherSettings(repository=repository, build_dir=tmp_path))


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ({}, None),
        ({"precision": "fp32"}, None),
        ({"precision": "int8"}, "its precision is fp32, and int8 is asked for"),
        ({"revision": "a" * 40}, None),
        ({"revision": "b" * 40}, f"its revision is {'a' * 40}, and {'b' * 40} is asked for"),
    ],
)
def test_a_model_is_exported_again_if_another_precision_or_revision_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], difference: str | None
) -> None:
    folders = ModelFolders(tmp_path / "model_repository", "org/m")
    manifest = {"public_id": "org/m", "max_tokens": 16, "files": [], "precision": "fp32", "revision": "a" * 40}
    spec = ModelSpec("bert", 8, 100, 16, 16, "mean")
    folders.write_configs(ServedModel(Identity("org/m", manifest=json.dumps(manifest)), spec))
    exports = []
    monkeypatch.setattr("launcher.models.run_module", lambda *command: exports.append(command))
    settings = LauncherSettings.model_validate({"build_dir": tmp_path, "model": "org/m", **asked})
    prepare_repository(settings)
    again = [command for command in exports if "org/m" in command]
    if difference is None:
        assert not again
        return
    assert list(find_differences(manifest, settings)) == [difference]
    [command] = again
    [(option, value)] = asked.items()
    assert {"--replace", f"--{option}", value} <= set(command)
