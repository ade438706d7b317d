from pathlib import Path

import pytest

from launcher.errors import EmptyRepositoryError, LauncherError
from launcher.models import prepare_repository, public_id, run_module
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
