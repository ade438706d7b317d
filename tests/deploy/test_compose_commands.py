"""The commands and health checks of docker-compose.yml, run without containers on a real Triton."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy import health_check
from launcher import triton
from tests.deploy.conftest import read_form
from tests.export.tiny_bert import write_tiny_bert
from tests.service import PROJECT, free_ports, wait_until

PROC = Path("/proc")


@dataclass(frozen=True)
class Server:
    """A Triton started by the service's command."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    metrics_port: int

    def is_healthy(self) -> bool:
        return health_check.get(self.metrics_port, "/metrics", health_check.TIMEOUT_S) is not None

    def stub(self) -> psutil.Process:
        """Return the preprocessing process."""
        children = psutil.Process(self.process.pid).children()
        [stub] = [child for child in children if any("preprocess" in word for word in child.cmdline()[1:])]
        return stub


@pytest.fixture(scope="module")
def services():
    """Those of the form without a GPU; the commands are the same in both."""
    return read_form("cpu")["services"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    checkpoint = write_tiny_bert(folder / "tiny-bert")
    command = [sys.executable, "-m", "export", str(checkpoint), "--repository", str(folder / "models" / "repository")]
    subprocess.run(command, cwd=PROJECT, check=True)
    return folder / "models" / "repository"


@pytest.fixture
def server(triton_command, repository, tmp_path) -> Iterator[Server]:
    """Triton, started by the image's command with other paths, ports and addresses."""
    backends = triton.assemble_backends(tmp_path / "backends")
    grpc_port, metrics_port = free_ports(2)
    places = {
        "tritonserver": triton.server_command(repository, backends, 0, 0)[0],
        "/models/repository": str(repository),
        "/opt/tritonserver/backends": str(backends),
        "0.0.0.0": "127.0.0.1",
        "8001": str(grpc_port),
        "8002": str(metrics_port),
    }
    command = [replace_value(word, places) for word in triton_command]
    with (tmp_path / "triton.log").open("wb") as log:
        process = subprocess.Popen(command, env=triton.server_environment(), stdout=log, stderr=log)
    running = Server(process, grpc_port, metrics_port)
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
        wait_until(lambda: check_gateway(http_port, tmp_path) == 0, 30)
        os.kill(server.stub().pid, signal.SIGKILL)
        wait_until(lambda: check_gateway(http_port, tmp_path) != 0, 10)
    finally:
        gateway.terminate()
        gateway.wait(40)


@pytest.mark.triton
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_probe_notices_a_dead_or_stopped_preprocessing(server, how):
    os.kill(server.stub().pid, how)
    wait_until(lambda: server.process.pid in health_check.find_broken(list(health_check.read_processes(PROC))), 5)
    assert server.is_healthy()  # Triton itself notices nothing


def check_gateway(port: int, folder: Path) -> int:
    """Run the gateway's health check, which finds no process to kill."""
    return health_check.main("gateway", health_check.Container(folder, folder, folder, port))
