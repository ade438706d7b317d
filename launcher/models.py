"""What stands in the repository: recovered, complete, unharmed, and with the models asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from export.errors import ExportError
from export.publish import recover
from export.sources import default_public_id
from export.verify import verify
from launcher.errors import EmptyRepositoryError, LauncherError

log = logging.getLogger(__name__)


def prepare_repository(repository: Path, models: tuple[str, ...]) -> tuple[str, ...]:
    """Make the repository ready to serve.

    Args:
        repository: Folder of Triton models.
        models: Hub ids or folders to export unless they stand there.

    Returns:
        The public ids in it.

    Raises:
        LauncherError: An export failed, a file is not what its manifest says, or there is nothing to serve.
    """
    try:
        recover(repository)
        served = verify(repository)
        missing = [model for model in models if default_public_id(model) not in served]
        for model in missing:
            export(model, repository)
        if missing:
            served = verify(repository)
    except ExportError as error:
        raise LauncherError(str(error)) from error
    if not any(repository.glob("*/config.pbtxt")):
        raise EmptyRepositoryError(repository)
    return served


def export(model: str, repository: Path) -> None:
    """Run the export in a process of its own: its memory is free again before anything is served."""
    log.info("exporting %s", model)
    command = [sys.executable, "-m", "export", model, "--repository", str(repository)]
    if subprocess.run(command, check=False).returncode:
        raise LauncherError(f"exporting {model} failed")
