import os
import sys
import threading
from pathlib import Path

import pytest

from launcher import supervisor
from launcher.errors import ProcessDiedError, StartTimeoutError
from launcher.processes import ChildProcess
from launcher.settings import LauncherSettings
from launcher.supervisor import Supervised, gateway_environment
from tests.service import wait_until


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def supervise(code: str, log_path: Path, is_ready: bool = True) -> Supervised:
    """Supervise a Python process that runs `code`."""
    command = [sys.executable, "-c", code]
    return Supervised(lambda: ChildProcess("child", command, os.environ, log_path), lambda: is_ready)


def wait_for_exit(process: ChildProcess, code: int) -> None:
    wait_until(lambda: process.exit_code == code, 10)


def test_a_process_that_exits_while_starting_is_an_error_with_its_log(log_path: Path) -> None:
    supervised = supervise("raise SystemExit('no such model')", log_path, is_ready=False)
    with pytest.raises(ProcessDiedError, match="child exited while starting; its log ends with:\nno such model"):
        supervised.wait_ready(10, threading.Event())


def test_a_process_that_is_not_ready_in_time_is_an_error(log_path: Path) -> None:
    supervised = supervise("import time; time.sleep(60)", log_path, is_ready=False)
    with pytest.raises(StartTimeoutError, match="child was not ready within 0 s"):
        supervised.wait_ready(0.2, threading.Event())
    supervised.process.stop(1)


def test_a_process_that_exits_is_restarted_after_growing_delays(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MIN_RESTART_DELAY_S", 0.01)
    supervised = supervise("raise SystemExit(3)", log_path)
    stopping, delays_s = threading.Event(), []
    for _ in range(3):
        first = supervised.process
        wait_for_exit(first, 3)
        assert supervised.find_fault() == "exited with code 3"
        supervised.watch(stopping)
        assert supervised.process is not first
        delays_s.append(supervised.restart_delay_s)
    assert delays_s == [0.02, 0.04, 0.08]
    supervised.process.stop(1)


def test_a_process_without_fault_keeps_running(log_path: Path) -> None:
    supervised = supervise("import time; time.sleep(60)", log_path)
    process = supervised.process
    supervised.watch(threading.Event())
    assert supervised.process is process and process.exit_code is None
    process.stop(1)


def test_the_gateway_gets_the_launchers_ports_and_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("GATEWAY_MAX_ITEMS", "7")
    settings = LauncherSettings(host="0.0.0.0", gateway_port=1, triton_grpc_port=2, triton_metrics_port=3)
    environment = gateway_environment(settings)
    expected = {
        "HOST": "0.0.0.0",
        "GATEWAY_PORT": "1",
        "TRITON_URL": "127.0.0.1:2",
        "TRITON_METRICS_URL": "http://127.0.0.1:3/metrics",
        "GATEWAY_MAX_ITEMS": "7",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    assert environment.items() >= expected.items()
