import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy import triton_probe
from tests.service import free_ports

STUB = "triton_python_b"


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep silent."""


@pytest.fixture
def metrics_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process in the role of Triton."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def write_process(proc: Path, pid: int, name: str, state: str, parent: int) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} {parent} 1 1 0 -1 4194560 0\n")


def test_a_triton_whose_processes_run_is_healthy_and_left_alone(metrics_port, server, tmp_path):
    write_process(tmp_path, 20, STUB, "S", server.pid)
    write_process(tmp_path, 21, STUB, "R", server.pid)
    assert triton_probe.main(metrics_port, tmp_path) == 0
    assert server.poll() is None


@pytest.mark.parametrize("state", "ZXTt")
def test_a_triton_that_has_lost_a_process_is_killed(metrics_port, server, tmp_path, state, capsys):
    write_process(tmp_path, 20, STUB, "S", server.pid)
    write_process(tmp_path, 21, STUB, state, server.pid)
    assert triton_probe.main(metrics_port, tmp_path) == 1
    assert server.wait(10) == -9
    assert f"process {server.pid}" in capsys.readouterr().out


def test_a_stopped_triton_is_killed_although_its_metrics_do_not_respond(server, tmp_path):
    [port] = free_ports(1)
    write_process(tmp_path, server.pid, "tritonserver", "T", 1)
    assert triton_probe.main(port, tmp_path) == 1
    assert server.wait(10) == -9


def test_other_processes_may_die(metrics_port, server, tmp_path):
    write_process(tmp_path, 20, "decoder) Z 1 (", "Z", server.pid)
    assert triton_probe.main(metrics_port, tmp_path) == 0
    assert server.poll() is None


def test_a_triton_that_is_still_loading_is_unhealthy_and_left_alone(server, tmp_path):
    [port] = free_ports(1)
    write_process(tmp_path, 20, STUB, "Z", server.pid)
    assert triton_probe.main(port, tmp_path) == 1
    assert server.poll() is None
