"""Tests that ONNX Runtime sends no telemetry from a benchmark."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.peers import servers
from bench.settings import BenchSettings

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


@pytest.mark.parametrize("peer", servers.PEERS, ids=lambda peer: peer.name)
def test_telemetry_is_disabled_in_the_process_of_a_peer(
    peer: servers.Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[Mapping[str, str]] = []

    @contextmanager
    def run_server(name: str, command: object, environment: Mapping[str, str], *rest: object) -> Iterator[None]:
        environments.append(environment)
        yield

    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.setattr(servers, "run_server", run_server)
    monkeypatch.setattr(servers, "prepare_environment", lambda folder, requirements: tmp_path / "bin" / "python")
    with servers.run_peer(replace(peer, prepare_folder=None), tmp_path, BenchSettings(build_dir=tmp_path)):
        assert [environment["ORT_DISABLE_TELEMETRY"] for environment in environments] == ["1"]
