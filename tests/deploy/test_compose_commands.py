"""The commands and health checks of docker-compose.yml, run without containers on a real Triton."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from deploy import triton_probe
from launcher import triton
from tests.export.tiny_bert import write_tiny_bert
from tests.service import PROJECT, free_ports, wait_until


@dataclass(frozen=True)
class Server:
    """A Triton started by the service's command."""

    process: subprocess.Popen[bytes]
    backends: Path
    grpc_port: int
    metrics_port: int

    def is_healthy(self) -> bool:
        return triton_probe.serves_metrics(self.metrics_port) and self.process.pid not in self.broken()

    def broken(self) -> list[int]:
        return list(triton_probe.find_broken_servers(Path("/proc")))

    def stub(self) -> psutil.Process:
        """Return the preprocessing process."""
        [stub] = [child for child in psutil.Process(self.process.pid).children() if "preprocess" in child.exe()]
        return stub


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    checkpoint = write_tiny_bert(folder / "tiny-bert")
    command = [sys.executable, "-m", "export", str(checkpoint), "--repository", str(folder / "models" / "repository")]
    subprocess.run(command, cwd=PROJECT, check=True)
    return folder / "models" / "repository"


@pytest.fixture
def server(services, repository, tmp_path) -> Iterator[Server]:
    """Triton, started by the service's command with other paths, ports and addresses.

    The backend folder is laid out as in the image, where preprocessing brings its own Python. Only the ONNX Runtime
    backend is ours, because the embedded Triton has no other.
    """
    backends = triton.assemble_backends(tmp_path / "backends")
    for file in (backends / "python").iterdir():
        shutil.copy2(file, backends / "preprocess")
    grpc_port, metrics_port = free_ports(2)
    places = {
        "tritonserver": triton.server_command(repository, backends, 0, 0)[0],
        "/models/repository": str(repository),
        "/opt/tritonserver/backends": str(backends),
        "0.0.0.0": "127.0.0.1",
        "8001": str(grpc_port),
        "8002": str(metrics_port),
    }
    command = [replace_value(word, places) for word in services["triton"]["command"]]
    with (tmp_path / "triton.log").open("wb") as log:
        process = subprocess.Popen(command, env=triton.server_environment(), stdout=log, stderr=log)
    running = Server(process, backends, grpc_port, metrics_port)
    try:
        wait_until(lambda: running.is_healthy() or process.poll() is not None, 60)
        assert process.poll() is None, (tmp_path / "triton.log").read_text()
        yield running
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a Triton whose processes may hang, and free the shared memory that it leaves behind."""
    shared = []
    if process.poll() is None:
        maps = psutil.Process(process.pid).memory_maps()
        shared = [Path(mapped.path) for mapped in maps if mapped.path.startswith("/dev/shm/triton_")]
    process.kill()
    process.wait()
    for path in shared:
        path.unlink(missing_ok=True)


def replace_value(word: str, places: dict[str, str]) -> str:
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{places.get(value, value)}"


@pytest.mark.triton
def test_triton_serves_and_the_gateway_finds_it(server, services, tmp_path):
    assert server.stub().exe() == str(server.backends / "preprocess" / "triton_python_backend_stub")
    [http_port] = free_ports(1)
    environment = {name: value for name, value in services["gateway"]["environment"].items() if value is not None}
    assert environment == {
        "HOST": "0.0.0.0", "GATEWAY_PORT": "8000",
        "TRITON_URL": "triton:8001", "TRITON_METRICS_URL": "http://triton:8002/metrics",
    }  # fmt: skip
    replaced = {
        "HOST": "127.0.0.1", "GATEWAY_PORT": str(http_port), "TRITON_URL": f"127.0.0.1:{server.grpc_port}",
    }  # fmt: skip
    _, *arguments = services["gateway"]["command"]
    with (tmp_path / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(
            [sys.executable, *arguments], cwd=PROJECT, env=os.environ | replaced, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: check_gateway(services, http_port) == 0, 30)
        os.kill(server.stub().pid, signal.SIGKILL)
        wait_until(lambda: check_gateway(services, http_port) != 0, 10)
    finally:
        gateway.terminate()
        gateway.wait(40)


@pytest.mark.triton
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_probe_notices_a_dead_or_stopped_preprocessing(server, how):
    os.kill(server.stub().pid, how)
    wait_until(lambda: server.process.pid in server.broken(), 5)
    assert triton_probe.serves_metrics(server.metrics_port)  # Triton itself notices nothing


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/v1/health/ready" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep silent."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_gateways_check_follows_its_readiness(services, status, healthy):
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert (check_gateway(services, server.server_port) == 0) is healthy
        server.shutdown()


def test_the_gateways_check_fails_if_no_process_listens(services):
    [port] = free_ports(1)
    assert check_gateway(services, port) != 0


def check_gateway(services, port: int) -> int:
    """Run the gateway's health check against another port, past a proxy that leads nowhere."""
    kind, program, *arguments = services["gateway"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    command = [sys.executable, *(word.replace(":8000/", f":{port}/") for word in arguments)]
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=environment, capture_output=True).returncode
