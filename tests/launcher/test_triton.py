import os
import socket
import sys
from pathlib import Path

import pytest

from launcher import triton
from launcher.errors import LauncherError, PortTakenError
from launcher.ports import check_port_free
from tests.service import free_ports


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


def test_a_python_without_stub_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", _Version())
    with pytest.raises(LauncherError, match=r"no stub for Python 3\.99"):
        triton.assemble_backends(tmp_path / "backends")


class _Version:
    major, minor = 3, 99


def test_triton_listens_on_loopback_with_grpc_and_metrics_only(tmp_path: Path) -> None:
    command = triton.server_command(tmp_path, tmp_path, 1, 2)
    assert {"--allow-http=false", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(command)
    assert "--model-control-mode=none" in command


def test_a_free_port_passes_and_a_taken_one_is_named() -> None:
    [port] = free_ports(1)
    check_port_free("127.0.0.1", port, "GATEWAY_PORT")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTakenError, match=f"{port}.*GATEWAY_PORT=PORT"):
        check_port_free("127.0.0.1", port, "GATEWAY_PORT")


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(LauncherError, match=r"no\.such\.host\.invalid is no address"):
        check_port_free("no.such.host.invalid", 1, "GATEWAY_PORT")
