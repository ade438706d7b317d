"""Prepares the model repository: recovers and verifies it, and exports the models it lacks."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.progress import Progress
from export.publish import recover
from export.sources import default_public_id, find_commit
from export.verify import verify_each
from launcher.errors import EmptyRepositoryError, LauncherError
from launcher.processes import child_environment
from launcher.published import PublishedModel, wait_for_published
from launcher.settings import STAND_IN, TEXT_MODEL, LauncherSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedModels:
    """What there is to serve.

    Attributes:
        repository: Model repository.
        published: Its models, read before they were verified.
        limits: The longest input of each intact model, in tokens, by public id.
        damaged: Why the others are not served, by public id.
    """

    repository: Path
    published: Mapping[str, PublishedModel]
    limits: Mapping[str, int]
    damaged: Mapping[str, str] = field(default_factory=dict)


def prepare_repository(settings: LauncherSettings) -> PreparedModels:
    """Make the repository ready to serve.

    Raises:
        LauncherError: An export failed, or there is no model that can be served.
    """
    repository = settings.served_repository
    try:
        recover(repository)
        published = wait_for_published(repository)
        found = verify_each(repository)
        known = found.intact.keys() | found.damaged.keys()
        missing = [model for model in settings.required_models if public_id(model) not in known]
        for model in missing:
            export_model(model, settings)
        held = found.intact.get(public_id(settings.model)) if settings.model and not settings.repository else None
        differences = list(find_differences(held, settings)) if held else []
        if settings.model and differences:
            log.info("%s is exported again: %s", settings.model, "; ".join(differences))
            export_model(settings.model, settings, "--replace")
        if missing or differences:
            published = wait_for_published(repository)
            found = verify_each(repository)
    except ExportError as error:
        raise LauncherError(str(error)) from error
    if not any(repository.glob("*/config.pbtxt")):
        raise EmptyRepositoryError(repository)
    for model, reason in found.damaged.items():
        log.error("%s is not served: %s", model, reason)
    if found.damaged and not found.intact:
        raise LauncherError(next(iter(found.damaged.values())))
    limits = {name: manifest["max_tokens"] for name, manifest in found.intact.items()}
    return PreparedModels(repository, published, limits, found.damaged)


def public_id(model: str) -> str:
    """Return a model's public id; the stand-in has no checkpoint yet to derive it from."""
    return model if model == STAND_IN else default_public_id(model)


def find_differences(manifest: Mapping[str, Any], settings: LauncherSettings) -> Iterator[str]:
    """Yield what distinguishes an exported model from what is asked for.

    Args:
        manifest: Of the exported model.
        settings: What is asked for. A revision that is no commit is looked up on the hub.
    """
    revision = settings.revision and find_commit(str(settings.model), settings.revision, Progress())
    for name, value in (("precision", settings.precision), ("revision", revision)):
        if value and manifest[name] != value:
            yield f"its {name} is {manifest[name]}, and {value} is asked for"


def export_model(model: str, settings: LauncherSettings, *further_options: str) -> None:
    """Export a model in a separate process, so that its memory is freed before anything is served."""
    log.info("exporting %s", model)
    with tempfile.TemporaryDirectory() as scratch:
        source, options = model, ["--precision", settings.precision or "fp32"]
        if settings.revision:
            options += ["--revision", settings.revision]
        if model == STAND_IN:
            source, options = str(Path(scratch) / "random-weights"), ["--name", STAND_IN]
            run_module("export.tiny_checkpoint", source)
        elif model == TEXT_MODEL != settings.model:
            options = []
        run_module("export", source, *options, *further_options, "--repository", str(settings.served_repository))


def run_module(*command: str) -> None:
    """Run a module of this project, which prints its output and errors itself.

    Raises:
        LauncherError: The module failed.
    """
    if subprocess.run([sys.executable, "-m", *command], env=child_environment(), check=False).returncode:
        raise LauncherError(f"python -m {' '.join(command)} failed")
