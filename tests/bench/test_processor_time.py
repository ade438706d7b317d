"""Tests of the processor times that the benchmark reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.processes import processor_seconds, read_clock


def test_clock_of_a_process_is_its_processor_time() -> None:
    before = read_clock(os.getpid())
    own_before = time.process_time()
    while time.process_time() < own_before + 0.001:
        pass
    own_used, used = time.process_time() - own_before, read_clock(os.getpid()) - before
    assert own_used <= used < own_used + 0.05


def test_clock_of_a_process_that_ended_is_an_error() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ProcessLookupError):
        read_clock(ended.pid)


def test_processes_of_one_name_are_summed_up() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    children = [
        subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        seconds = processor_seconds(os.getpid(), lambda process: "own" if process.pid == os.getpid() else "children")
    finally:
        for child in children:
            child.communicate(b"\n")
    assert seconds.keys() == {"own", "children"}
    assert seconds["children"] >= 0.4
