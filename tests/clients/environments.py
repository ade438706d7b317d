"""Environments of other people's packages: one per requirements file, installed once."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.service import PROJECT

REQUIREMENTS = Path(__file__).parent / "requirements"
CACHE = PROJECT / "build" / "clients"
INSTALL_TIMEOUT_S = 500
NO_NETWORK = ("dns error", "error sending request", "Failed to fetch", "client error (Connect)")
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


@cache
def read_pins() -> dict[str, dict[str, str]]:
    """Return the version of each package that a group was asked for, per group."""
    groups = {}
    for requested in REQUIREMENTS.glob("*.in"):
        pins = dict(PIN.findall(requested.with_suffix(".txt").read_text()))
        groups[requested.stem] = {package: pins[package] for package in requested.read_text().split()}
    return groups


def find_group(package: str) -> str:
    """Return the group that was made for a package: the first of those that ask for it, by length of their lists."""
    groups = [(len(packages), group) for group, packages in read_pins().items() if package in packages]
    assert groups, f"no file in tests/clients/requirements asks for {package}"
    return min(groups)[1]


def install(group: str, report: Callable[[str], None]) -> Path:
    """Create the virtual environment of a group, unless it exists.

    Without a package registry, the test is skipped.

    Args:
        group: Name of a file in `requirements/`, without its ending.
        report: Called with lines about the progress.

    Returns:
        The environment's folder.
    """
    requirements = REQUIREMENTS / f"{group}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"{group}-{digest}"
    if (folder / ".complete").exists():
        return folder
    report(f"installing the clients of {group}.txt, {len(PIN.findall(requirements.read_text()))} packages …")
    start = time.monotonic()
    run_uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    python = str(folder / "bin" / "python")
    result = run_uv("pip", "install", "--no-config", "--python", python, "--requirement", str(requirements))
    if any(sign in result.stderr for sign in NO_NETWORK):
        report(f"SKIPPED: {group} is not tested, because no package registry can be reached")
        pytest.skip("uv cannot reach a package registry")
    assert result.returncode == 0, result.stderr
    report(f"installed them in {time.monotonic() - start:.0f} s")
    (folder / ".complete").touch()
    return folder


def run_uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)


def read_node_pins(folder: Path) -> dict[str, str]:
    """Return the version of each package that a package.json asks for."""
    return dict(json.loads((folder / "package.json").read_text())["dependencies"])
