"""What stands in the repository: recovered, complete, unharmed, and with the models asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from export.errors import ExportError
from export.publish import find_manifests, recover
from export.verify import verify
from launcher.errors import EmptyRepositoryError, LauncherError

log = logging.getLogger(__name__)


def prepare_repository(repository: Path, models: tuple[str, ...]) -> list[str]:
    """Make the repository ready to serve.

    Args:
        repository: Folder of Triton models.
        models: Hub ids or folders to export unless they stand there.

    Returns:
        The public ids in it.

    Raises:
        LauncherError: An export failed, a file is not what its manifest says, or there is nothing to serve.
    """
    recover(repository)
    for model in models:
        if not any(model in (manifest["public_id"], manifest["source"]) for manifest in find_manifests(repository)):
            export(model, repository)
    manifests = find_manifests(repository)
    if not manifests and not any(repository.glob("*/config.pbtxt")):
        raise EmptyRepositoryError(repository)
    try:
        verify(repository)
    except ExportError as error:
        raise LauncherError(str(error)) from error
    return [manifest["public_id"] for manifest in manifests]


def export(model: str, repository: Path) -> None:
    """Run the export in a process of its own: its memory is free again before anything is served."""
    log.info("exporting %s", model)
    command = [sys.executable, "-m", "export", model, "--repository", str(repository)]
    if subprocess.run(command, check=False).returncode:
        raise LauncherError(f"exporting {model} failed")
