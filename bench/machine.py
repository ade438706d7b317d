"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "nvidia-pytriton",
    "onnxruntime",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "uvloop",
    "orjson",
    "grpcio",
    "tritonclient",
    "numpy",
    "pillow",
)


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory, system, commit and load."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": find_processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "commit": find_commit(),
    }


def describe_versions() -> dict[str, str]:
    """Return Python's version and those of the packages that decide the figures."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def find_processor() -> str:
    """Return the processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def find_commit() -> str:
    """Return the commit measured, empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return finished.stdout.strip()
