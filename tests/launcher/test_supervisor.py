import os
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil
import pytest

from launcher import supervisor
from launcher.errors import CrashLoopError, ProcessDiedError, StartTimeoutError
from launcher.probes import WHOLE
from launcher.processes import ChildProcess
from launcher.settings import LauncherSettings
from launcher.supervisor import MAX_FAILED_STARTS, Supervised, gateway_environment
from tests.service import wait_until

SLEEP = "import time; time.sleep(60)"


class FakeProbe:
    """Answers as the test says."""

    def __init__(self, responds: bool = True) -> None:
        self.responds = responds
        self.resets = 0

    def find_silent(self) -> Collection[str]:
        return () if self.responds else (WHOLE,)

    def count_progress(self, name: str) -> int:
        return 0

    def works_for(self, process: psutil.Process, name: str) -> bool:
        return True

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "MIN_RESTART_DELAY_S", 0.01)
    yield


def supervise(code: str, log_path: Path, probe: FakeProbe | None = None, start_timeout_s: float = 30) -> Supervised:
    """Supervise a Python process that runs `code`."""
    command = [sys.executable, "-c", code]
    return Supervised(
        lambda: ChildProcess("child", command, os.environ, log_path), probe or FakeProbe(), start_timeout_s
    )


def wait_for_exit(process: ChildProcess, code: int) -> None:
    wait_until(lambda: process.exit_code == code, 10)


def test_a_process_that_exits_while_starting_is_an_error_with_its_log(log_path: Path) -> None:
    supervised = supervise("raise SystemExit('no such model')", log_path)
    with pytest.raises(ProcessDiedError, match="child exited while starting; its log ends with:\nno such model"):
        supervised.wait_ready(lambda: False, threading.Event())


def test_a_process_that_is_not_ready_in_time_is_an_error(log_path: Path) -> None:
    supervised = supervise(SLEEP, log_path, start_timeout_s=0.2)
    with pytest.raises(StartTimeoutError, match="child was not ready within 0 s"):
        supervised.wait_ready(lambda: False, threading.Event())
    supervised.process.kill()


def test_a_process_that_exits_is_restarted_after_growing_delays(log_path: Path) -> None:
    probe = FakeProbe()
    supervised = supervise("raise SystemExit(3)", log_path, probe)
    stopping, delays_s = threading.Event(), []
    for _ in range(3):
        first = supervised.process
        wait_for_exit(first, 3)
        assert supervised.find_fault() == "exited with code 3"
        supervised.watch(stopping)
        assert supervised.process is not first
        delays_s.append(supervised.restart_delay_s)
    assert delays_s == [0.02, 0.04, 0.08]
    assert probe.resets == 4
    supervised.process.kill()


def test_a_crash_loop_ends_with_the_last_lines_of_the_log(log_path: Path) -> None:
    supervised = supervise("raise SystemExit('the disk is gone')", log_path, FakeProbe(responds=False))
    with pytest.raises(CrashLoopError, match="child exited with code 1, after 5 starts in a row") as loop:
        for _ in range(MAX_FAILED_STARTS):
            wait_for_exit(supervised.process, 1)
            supervised.watch(threading.Event())
    assert str(loop.value).endswith("the disk is gone")


def test_a_process_that_responds_between_its_faults_is_restarted_for_ever(log_path: Path) -> None:
    supervised = supervise(SLEEP, log_path)
    for _ in range(MAX_FAILED_STARTS + 1):
        supervised.watch(threading.Event())
        assert supervised.has_responded
        psutil.Process(supervised.process.pid).kill()
        wait_for_exit(supervised.process, -9)
        supervised.watch(threading.Event())
    supervised.process.kill()


def test_a_restarted_process_that_never_responds_is_restarted_again(log_path: Path) -> None:
    supervised = supervise(SLEEP, log_path, FakeProbe(responds=False), start_timeout_s=0.2)
    wait_until(lambda: supervised.find_fault() == "was not ready within 0 s", 10)
    supervised.process.kill()


def test_a_process_without_fault_keeps_running(log_path: Path) -> None:
    supervised = supervise(SLEEP, log_path)
    process = supervised.process
    supervised.watch(threading.Event())
    assert supervised.process is process and process.exit_code is None
    process.kill()


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
