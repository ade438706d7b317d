from pathlib import Path

import pytest
from pydantic import ValidationError

from launcher.settings import LauncherSettings


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Makefile passes unset variables as empty ones."""
    defaults = LauncherSettings()
    for name in LauncherSettings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert LauncherSettings() == defaults
    assert (defaults.gateway_port, defaults.triton_grpc_port, defaults.triton_metrics_port) == (8000, 8001, 8002)


def test_a_given_repository_is_served_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPOSITORY", str(tmp_path))
    settings = LauncherSettings()
    assert settings.served_repository == tmp_path
    assert settings.required_models == ()


def test_an_invalid_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "80000")
    with pytest.raises(ValidationError, match="gateway_port"):
        LauncherSettings()
