"""Tests that ONNX Runtime sends no telemetry from a benchmark."""

import os
import subprocess
import sys

import pytest

PROBE = """
import importlib, importlib.abc, os, sys

class Watcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print("telemetry disabled:", os.environ.get("ORT_DISABLE_TELEMETRY"), flush=True)

sys.meta_path.insert(0, Watcher())
importlib.import_module(sys.argv[1])
import onnxruntime
"""

PROCESSES = ("bench.__main__", "bench.full_size", "bench.instant_triton")


@pytest.mark.parametrize("module", PROCESSES)
def test_telemetry_is_disabled_before_onnxruntime_is_imported(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", PROBE, module]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout == "telemetry disabled: 1\n"
