import os
import sys
from pathlib import Path

import pytest

from launcher import triton
from launcher.errors import LauncherError


def test_backends_are_copied_not_linked(tmp_path: Path) -> None:
    """Triton refuses symbolic links that leave the backend directory."""
    backends = triton.assemble_backends(tmp_path / "backends")
    files = {str(path.relative_to(backends)) for path in backends.rglob("*") if path.is_file()}
    assert {
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    } <= files
    assert {"onnxruntime/model.py", "preprocess/model.py", "preprocess/tokenization.py"} <= files
    assert not any(path.is_symlink() for path in backends.rglob("*"))
    assert os.access(backends / "python" / "triton_python_backend_stub", os.X_OK)


def test_a_python_version_without_stub_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", _Version())
    with pytest.raises(LauncherError, match=r"no stub for Python 3\.99"):
        triton.assemble_backends(tmp_path / "backends")


class _Version:
    major, minor = 3, 99


def test_triton_listens_on_loopback_with_grpc_and_metrics_only(tmp_path: Path) -> None:
    command = triton.server_command(tmp_path, tmp_path, 1, 2)
    assert {"--allow-http=false", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(command)
    assert "--model-control-mode=none" in command


def test_triton_gets_its_libraries_and_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    environment = triton.server_environment()
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert any(path.endswith("nvidia_pytriton.libs") for path in environment["LD_LIBRARY_PATH"].split(":"))
