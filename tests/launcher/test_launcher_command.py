import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.__main__ import check_descriptors, check_port_free, describe_service
from launcher.errors import LauncherError, PortTakenError, TooFewDescriptorsError
from launcher.settings import LauncherSettings
from tests.service import PROJECT, free_ports


def test_a_port_in_use_is_an_error() -> None:
    [port] = free_ports(1)
    check_port_free("127.0.0.1", port, "GATEWAY_PORT")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTakenError, match=f"{port}.*GATEWAY_PORT=PORT"):
        check_port_free("127.0.0.1", port, "GATEWAY_PORT")


def test_a_host_that_cannot_be_resolved_is_an_error() -> None:
    with pytest.raises(LauncherError, match=r"no\.such\.host\.invalid cannot be resolved"):
        check_port_free("no.such.host.invalid", 1, "GATEWAY_PORT")


def test_the_ready_message_has_a_request_for_the_first_model(tmp_path: Path) -> None:
    settings = LauncherSettings(gateway_port=1234, build_dir=tmp_path)
    message = describe_service(settings, {"a/b": 256, "c/d": 10240}, 3.21)
    assert "Ready in 3.2 s: http://127.0.0.1:1234" in message
    assert "a/b: up to 256 tokens; longer input is refused" in message
    assert "c/d: up to 10240 tokens" in message
    assert """curl http://127.0.0.1:1234/v1/embeddings""" in message
    assert '"model": "a/b"' in message
    assert str(tmp_path / "logs") in message


def test_too_few_descriptors_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    check_descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 64))
    with pytest.raises(TooFewDescriptorsError, match="only 64 open files are allowed, and at least 128 needed"):
        check_descriptors()


@pytest.mark.parametrize(
    ("variables", "status", "message"),
    [
        ({"GATEWAY_PORT": "80000"}, 2, "error: GATEWAY_PORT: Input should be less than or equal to 65535"),
        ({"REPOSITORY": "/no/such/folder"}, 1, "error: /no/such/folder contains no model: export one with make export"),
    ],
)
def test_what_keeps_the_service_from_starting_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], status: int, message: str
) -> None:
    ports = zip(("GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT"), map(str, free_ports(3)), strict=True)
    for name, value in {**dict(ports), **variables}.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "launcher"], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stdout.startswith(message)
    assert done.stdout.count("\n") == 1
