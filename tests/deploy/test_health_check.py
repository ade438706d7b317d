"""The containers' health checks, on processes that only a fake `/proc` describes, except for those that are killed."""

import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy import health_check
from tests.service import free_ports

STUB = "triton_python_b"


class Responder(BaseHTTPRequestHandler):
    """Responds to the paths in its server's `pages`."""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)  # type: ignore[attr-defined]
        self.send_response(404 if page is None else 200)
        self.end_headers()
        self.wfile.write(page or b"")

    def log_message(self, *_: object) -> None:
        """Keep silent."""


@pytest.fixture
def pages() -> dict[str, bytes]:
    """What the server responds with, by path; a test changes it."""
    return {"/metrics": b"", "/v1/health/live": b"", "/v1/health/ready": b""}


@pytest.fixture
def port(pages) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Responder) as server:
        server.pages = pages  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process in the role of the container's main process."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def proc(tmp_path, server) -> Path:
    """A container whose init runs the server."""
    (tmp_path / "proc" / "1" / "fd").mkdir(parents=True)
    write_process(tmp_path / "proc", 1, "docker-init", "S", 0)
    write_process(tmp_path / "proc", server.pid, "tritonserver", "S", 1)
    return tmp_path / "proc"


@pytest.fixture
def clock(monkeypatch):
    """Time, in seconds, which a test moves on."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def write_process(proc: Path, pid: int, name: str, state: str, parent: int, cpu_ticks: int = 0) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = f"{pid} ({name}) {state} {parent} 1 1 0 -1 4194560 0 0 0 0 {cpu_ticks} 0 0 0 20 0 1 0\n"
    (proc / str(pid) / "stat").write_text(fields)


def check(name: str, proc: Path, port: int) -> int:
    folder = proc.parent
    return health_check.main(name, health_check.Container(proc, folder, folder / "repository", port))


def read_log(proc: Path) -> str:
    """Return what the checks wrote to the container's log."""
    log = proc / "1" / "fd" / "2"
    return log.read_text() if log.exists() else ""


def test_a_triton_whose_processes_run_is_healthy_and_left_alone(port, server, proc):
    write_process(proc, 20, STUB, "S", server.pid)
    write_process(proc, 21, STUB, "R", server.pid)
    assert check("triton", proc, port) == 0
    assert server.poll() is None


@pytest.mark.parametrize("state", "ZXTt")
def test_a_triton_that_has_lost_a_process_is_killed_and_the_log_says_why(port, server, proc, state):
    write_process(proc, 20, STUB, "S", server.pid)
    write_process(proc, 21, STUB, state, server.pid)
    assert check("triton", proc, port) == 1
    assert server.wait(10) == -9
    assert read_log(proc) == (
        f"health check: SIGKILL to process {server.pid}: it has lost a Python process, or one is stopped\n"
    )


@pytest.mark.parametrize("name", ["triton", "gateway"])
def test_a_stopped_server_is_killed_although_it_does_not_respond(server, proc, name):
    [closed_port] = free_ports(1)
    write_process(proc, server.pid, "tritonserver", "T", 1)
    assert check(name, proc, closed_port) == 1
    assert server.wait(10) == -9
    assert "it is stopped" in read_log(proc)


def test_nothing_is_killed_outside_a_container(server, proc):
    [closed_port] = free_ports(1)
    write_process(proc, 1, "systemd", "S", 0)
    write_process(proc, server.pid, "tritonserver", "T", 1)
    assert check("triton", proc, closed_port) == 1
    assert server.poll() is None


def test_other_processes_may_die(port, server, proc):
    write_process(proc, 20, "decoder) Z 1 (", "Z", server.pid)
    assert check("triton", proc, port) == 0
    assert server.poll() is None


def test_a_triton_that_is_still_loading_is_unhealthy_and_left_alone_however_long_it_takes(server, proc, clock):
    [closed_port] = free_ports(1)
    for ticks in range(0, 10**6, 10**5):
        write_process(proc, 20, STUB, "Z", server.pid, ticks)
        assert check("triton", proc, closed_port) == 1
        clock[0] += 1000
    assert server.poll() is None


def test_a_triton_that_stops_loading_is_killed(server, proc, clock):
    [closed_port] = free_ports(1)
    for _ in range(3):
        assert check("triton", proc, closed_port) == 1
        assert server.poll() is None
        clock[0] += health_check.LOADING_HUNG_S / 2
    assert check("triton", proc, closed_port) == 1
    assert server.wait(10) == -9


@pytest.mark.parametrize("name", ["triton", "gateway"])
def test_a_server_that_neither_responds_nor_works_any_more_is_killed(port, pages, server, proc, clock, name):
    assert check(name, proc, port) == 0
    pages.clear()
    clock[0] += 5
    assert check(name, proc, port) == 1
    clock[0] += health_check.IDLE_HUNG_S - 1
    assert check(name, proc, port) == 1
    assert server.poll() is None
    clock[0] += 1
    assert check(name, proc, port) == 1
    assert server.wait(10) == -9
    assert "it has neither responded nor worked for 15 s" in read_log(proc)


def test_a_busy_server_is_killed_only_after_minutes(port, pages, server, proc, clock):
    assert check("triton", proc, port) == 0
    pages.clear()
    ticks = 0
    began_s = clock[0]
    while server.poll() is None and clock[0] < began_s + 1000:
        clock[0] += 10
        ticks += 1000  # all of a core, at the usual 100 ticks a second
        write_process(proc, 20, STUB, "R", server.pid, ticks)
        assert check("triton", proc, port) == 1
        if read_log(proc):
            break
    assert server.wait(10) == -9
    assert clock[0] - began_s >= health_check.SILENT_HUNG_S
    assert "it has completed nothing for 300 s" in read_log(proc)


def test_a_triton_that_responds_but_gets_no_request_done_is_killed(port, pages, server, proc, clock):
    waiting = b'nv_inference_pending_request_count{model="a"} 3\n'
    for done in (1, 2, 3):
        pages["/metrics"] = waiting + b'nv_inference_request_success{model="a",version="1"} %d\n' % done
        assert check("triton", proc, port) == 0
        clock[0] += 20
    assert server.poll() is None
    for _ in range(2):
        check("triton", proc, port)
        clock[0] += 20
    assert server.wait(10) == -9


def test_an_idle_triton_without_requests_is_healthy(port, pages, server, proc, clock):
    pages["/metrics"] = b'nv_inference_pending_request_count{model="a"} 0\n'
    for _ in range(3):
        assert check("triton", proc, port) == 0
        clock[0] += 1000
    assert server.poll() is None


def test_a_gateway_whose_triton_is_away_is_unhealthy_and_left_alone(port, pages, server, proc, clock):
    del pages["/v1/health/ready"]
    for _ in range(3):
        assert check("gateway", proc, port) == 1
        clock[0] += 1000
    assert server.poll() is None


def test_a_stopped_worker_of_the_gateway_is_killed_alone(port, server, proc):
    worker = subprocess.Popen(["sleep", "60"])
    write_process(proc, worker.pid, "python", "T", server.pid)
    assert check("gateway", proc, port) == 0
    assert worker.wait(10) == -9
    assert server.poll() is None
    assert "another worker process takes its place" in read_log(proc)


def test_a_triton_is_stopped_once_when_a_publication_of_models_is_complete(port, server, proc, monkeypatch):
    repository = proc.parent / "repository"
    repository.mkdir()
    assert check("triton", proc, port) == 0
    (repository / "new_model").mkdir()
    published_s = repository.stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: published_s + health_check.PUBLISHED_S - 1)
    assert check("triton", proc, port) == 0
    monkeypatch.setattr(time, "time", lambda: published_s + health_check.PUBLISHED_S)
    assert check("triton", proc, port) == 1
    assert server.wait(10) == -15
    assert "SIGTERM to process" in read_log(proc) and "the models have changed" in read_log(proc)
    assert check("triton", proc, port) == 0, "it is stopping: a second signal would cut requests off"


def test_proxies_of_the_environment_are_not_asked(port, proc, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert check("gateway", proc, port) == 0
