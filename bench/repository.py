"""What is measured: a repository with the text model, and a stand-in for the flagship with small random weights.

The stand-in has the flagship's geometry, so that what goes on around the graphs shows: decoding, tiling, transport.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError
from bench.settings import PAGE_MODEL, PROJECT, TEXT_MODEL
from launcher.models import prepare_repository

log = logging.getLogger(__name__)


class ExportFailedError(BenchError):
    """A model cannot be exported."""


def export_models(repository: Path, reuse: bool) -> None:
    """Export both models.

    Args:
        repository: Where to.
        reuse: Keep what is there; what has changed in the export since is not measured then.

    Raises:
        ExportFailedError: The stand-in's export fails.
        LauncherError: The text model's export fails, or the repository is damaged.
    """
    if not reuse:
        shutil.rmtree(repository, ignore_errors=True)
    if PAGE_MODEL in prepare_repository(repository, (TEXT_MODEL,)):
        return
    checkpoint = repository.parent / "page_checkpoint"
    run_module("export.tiny_checkpoint", str(checkpoint))
    run_module("export", str(checkpoint), "--name", PAGE_MODEL, "--repository", str(repository))


def run_module(*words: str) -> None:
    """Run a module of this project in a process of its own.

    Raises:
        ExportFailedError: It ends with an error.
    """
    log.info("running %s", " ".join(words))
    if subprocess.run([sys.executable, "-m", *words], cwd=PROJECT, check=False).returncode:
        raise ExportFailedError(f"python -m {' '.join(words)} failed")
