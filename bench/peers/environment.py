"""Virtual environments of peers, made once and kept."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

log = logging.getLogger(__name__)


class InstallError(BenchError):
    """A peer cannot be installed."""


def prepare_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Return the interpreter of a virtual environment that holds the requirements.

    Args:
        folder: Where it stands, or is made.
        requirements: What pip is asked for; an environment made for others is made anew.

    Raises:
        InstallError: pip fails.
    """
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    log.info("installing %s into %s (minutes, once)", ", ".join(requirements), folder)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise InstallError(f"{' '.join(command)} failed:\n{finished.stderr.strip()[-2000:]}")
    stamp.write_text(wanted)
    return python
