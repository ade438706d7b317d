import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import pytest

from launcher import triton
from launcher.errors import LauncherError, UnwritableFolderError


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


def test_the_native_backend_replaces_the_embedded_one(tmp_path: Path) -> None:
    native = tmp_path / "native"
    native.mkdir()
    for name in (triton.NATIVE_LIBRARY, "libonnxruntime.so.1"):
        (native / name).write_text("a library")
    backends = triton.assemble_backends(tmp_path / "backends", native)
    assert {path.name for path in (backends / "onnxruntime").iterdir()} == {
        triton.NATIVE_LIBRARY,
        "libonnxruntime.so.1",
    }
    assert (backends / "preprocess" / "model.py").exists()


def test_a_folder_without_the_native_backend_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        LauncherError, match=r"does not contain libtriton_onnxruntime\.so: correct or unset NATIVE_BACK"
    ):
        triton.assemble_backends(tmp_path / "backends", tmp_path / "absent")


def test_a_python_version_without_stub_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", _Version())
    with pytest.raises(LauncherError, match=r"no stub for Python 3\.99"):
        triton.assemble_backends(tmp_path / "backends")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(LauncherError, match=r"file cannot be written: Not a directory\. Free space there"):
        triton.assemble_backends(file / "backends")
    full = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")])
    assert "cannot be written: No space left on device." in str(UnwritableFolderError(file, full))


class _Version:
    major, minor = 3, 99


def test_triton_listens_on_loopback_with_grpc_and_metrics_only(tmp_path: Path) -> None:
    command = triton.server_command(tmp_path, tmp_path, 1, 2)
    assert {"--allow-http=false", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(command)
    assert "--model-control-mode=poll" in command, "while it polls, it refuses to load models for clients"


def test_triton_is_told_the_version_of_onnx_runtime() -> None:
    assert triton.engine_flag() == f"--id=onnxruntime-{onnxruntime.__version__}"


def test_triton_gets_its_libraries_and_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    environment = triton.server_environment()
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert any(path.endswith("nvidia_pytriton.libs") for path in environment["LD_LIBRARY_PATH"].split(":"))


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a socket, in a folder that does not exist."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "own" / "grpc:8001"


def test_folder_of_the_socket_is_for_this_user_only(socket_path: Path) -> None:
    triton.prepare_socket(socket_path)
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    triton.prepare_socket(socket_path)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_folder_that_others_may_enter_is_refused(socket_path: Path, mode: int) -> None:
    socket_path.parent.mkdir()
    socket_path.parent.chmod(mode)
    with pytest.raises(LauncherError, match="is open to other users: run chmod 700"):
        triton.prepare_socket(socket_path)


def test_file_in_place_of_the_folder_is_refused(socket_path: Path) -> None:
    socket_path.parent.write_text("")
    with pytest.raises(LauncherError, match="cannot be used"):
        triton.prepare_socket(socket_path)


def test_socket_of_a_running_server_is_refused_and_that_of_a_dead_one_is_not(socket_path: Path) -> None:
    triton.prepare_socket(socket_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        server.listen()
        with pytest.raises(LauncherError, match="is in use by another server"):
            triton.prepare_socket(socket_path)
    triton.prepare_socket(socket_path)


def test_path_too_long_for_a_socket_is_refused(socket_path: Path) -> None:
    with pytest.raises(LauncherError, match="is too long for a socket"):
        triton.prepare_socket(socket_path.parent / ("a" * 100) / "grpc:8001")
