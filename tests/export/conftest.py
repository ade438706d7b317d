"""Fixtures: a tiny checkpoint, and the export command as a subprocess."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.tiny_bert import write_tiny_bert

ROOT = Path(__file__).resolve().parent.parent.parent
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tests only read."""
    return write_tiny_bert(tmp_path_factory.mktemp("checkpoint") / "tiny-bert")


@pytest.fixture
def own_tiny_bert(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "own" / "tiny-bert"))


@pytest.fixture
def export_environment(tmp_path: Path) -> dict[str, str]:
    """A hub that refuses connections, and empty caches."""
    return os.environ | {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def export_command(export_environment: dict[str, str]) -> Command:
    """Run `python -m export`, optionally with a hub and with a limit on the size of files."""

    def run(
        *arguments: object, hub: str | None = None, max_file_blocks: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = export_environment | ({"HF_ENDPOINT": hub} if hub else {})
        command = [sys.executable, "-m", "export", *map(str, arguments)]
        if max_file_blocks is not None:  # of 512 or 1024 bytes, depending on the shell
            command = ["sh", "-c", f'ulimit -f {max_file_blocks}; exec "$@"', "sh", *command]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run
