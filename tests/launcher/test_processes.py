import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launcher.processes import ChildProcess, kill_programs_of
from tests.service import PROJECT, wait_until

SLEEP = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('started', flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess, sys; subprocess.Popen({SLEEP!r}); print('started', flush=True); import time; time.sleep(60)",
]


def start(command: list[str], folder: Path) -> ChildProcess:
    child = ChildProcess("child", command, os.environ, folder / "logs" / "child.log")
    wait_until(lambda: "started" in child.log_tail(), 10)
    return child


@pytest.mark.parametrize("command", [SLEEP, STUBBORN], ids=["obedient", "stubborn"])
def test_stop_ends_a_process_that_ignores_sigterm_too(tmp_path: Path, command: list[str]) -> None:
    child = start(command, tmp_path)
    child.stop(grace_s=0.5)
    assert child.exit_code is not None
    assert not psutil.pid_exists(child.pid)


def test_stop_ends_the_descendants_of_the_process(tmp_path: Path) -> None:
    child = start(PARENT, tmp_path)
    wait_until(lambda: len(child.descendants()) == 1, 10)
    [grandchild] = child.descendants()
    child.stop(grace_s=1.0)
    wait_until(lambda: not grandchild.is_running(), 5)


def test_kill_ends_stopped_processes_too(tmp_path: Path) -> None:
    child = start(PARENT, tmp_path)
    wait_until(lambda: len(child.descendants()) == 1, 10)
    family = [psutil.Process(child.pid), *child.descendants()]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_programs_of_a_folder_are_killed_whoever_their_parent_is(tmp_path: Path) -> None:
    program = tmp_path / "backends" / "stub"
    program.parent.mkdir()
    shutil.copy2("/bin/sleep", program)
    orphan, other = subprocess.Popen([str(program), "60"]), subprocess.Popen(["/bin/sleep", "60"])
    try:
        assert kill_programs_of(program.parent) == 1
        assert not psutil.pid_exists(orphan.pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        orphan.wait()


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from launcher.processes import ChildProcess\n"
        f"child = ChildProcess('child', {SLEEP!r}, os.environ, Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: "run_tied.py" not in " ".join(child.cmdline()), 10)
        parent.kill()
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
