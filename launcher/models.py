"""What stands in the repository: recovered, complete, unharmed, and with the models asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from export.errors import ExportError
from export.publish import recover
from export.sources import default_public_id
from export.verify import verify
from launcher.errors import EmptyRepositoryError, LauncherError
from launcher.settings import STAND_IN, TEXT_MODEL, LauncherSettings

log = logging.getLogger(__name__)


def prepare_repository(settings: LauncherSettings) -> tuple[str, ...]:
    """Make the repository ready to serve.

    Returns:
        The public ids in it.

    Raises:
        LauncherError: An export failed, a file is not what its manifest says, or there is nothing to serve.
    """
    repository = settings.served_repository
    try:
        recover(repository)
        served = verify(repository)
        missing = [model for model in settings.wanted_models if public_id(model) not in served]
        for model in missing:
            export(model, settings)
        if missing:
            served = verify(repository)
    except ExportError as error:
        raise LauncherError(str(error)) from error
    if not any(repository.glob("*/config.pbtxt")):
        raise EmptyRepositoryError(repository)
    return served


def public_id(model: str) -> str:
    """Return the name that a model is served by: the stand-in's has no checkpoint behind it yet."""
    return model if model == STAND_IN else default_public_id(model)


def export(model: str, settings: LauncherSettings) -> None:
    """Run the export in a process of its own: its memory is free again before anything is served."""
    log.info("exporting %s", model)
    with tempfile.TemporaryDirectory() as scratch:
        source, options = model, ["--precision", settings.precision]
        if model == STAND_IN:
            source, options = str(Path(scratch) / "random-weights"), ["--name", STAND_IN]
            run_module("export.tiny_checkpoint", source)
        elif model == TEXT_MODEL:
            options = []
        run_module("export", source, *options, "--repository", str(settings.served_repository))


def run_module(*command: str) -> None:
    """Run a module of this project with its output shown.

    Raises:
        LauncherError: It failed; it has said why.
    """
    if subprocess.run([sys.executable, "-m", *command], check=False).returncode:
        raise LauncherError(f"python -m {' '.join(command)} failed")
