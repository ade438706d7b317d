import os
import subprocess
import sys
import time

import pytest

from bench.servers import read_cpu_clock, read_cpu_seconds


def test_clock_of_a_process_is_its_cpu_time() -> None:
    before = read_cpu_clock(os.getpid())
    own_before = time.process_time()
    while time.process_time() < own_before + 0.001:
        pass
    own_used, used = time.process_time() - own_before, read_cpu_clock(os.getpid()) - before
    assert own_used <= used < own_used + 0.05


def test_clock_of_a_process_that_has_ended_is_an_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ProcessLookupError):
        read_cpu_clock(ended.pid)


def test_cpu_time_of_processes_with_the_same_name_is_added_up() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    children = [
        subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        seconds = read_cpu_seconds(os.getpid(), lambda process: "own" if process.pid == os.getpid() else "children")
    finally:
        for child in children:
            child.communicate(b"\n")
    assert seconds.keys() == {"own", "children"}
    assert seconds["children"] >= 0.4
