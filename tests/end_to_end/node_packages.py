"""Run Node scripts, with their packages installed once for each lock file."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import PROJECT

CACHE = PROJECT / "build" / "node"
INSTALL_TIMEOUT_S = 300
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


def install(folder: Path) -> Path:
    """Copy a folder with a package-lock.json into the cache, and install its packages there.

    Without Node, npm or a package registry, the test is skipped.

    Returns:
        The copy.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed")
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()[:16]
    copy = CACHE / lock
    shutil.copytree(folder, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    installed = copy / "node_modules" / ".complete"
    if not installed.exists():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        if any(code in result.stderr for code in NO_NETWORK):
            pytest.skip("npm cannot reach a package registry")
        assert result.returncode == 0, result.stderr
        installed.touch()
    return copy


def run_script(folder: Path, script: str, **environment: str) -> str:
    """Run a TypeScript file from an installed folder and return its output."""
    command = [str(folder / "node_modules" / ".bin" / "tsx"), script]
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
