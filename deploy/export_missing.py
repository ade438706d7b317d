"""Exports the model named by the environment, unless the repository contains it as it is asked for.

`python -m deploy.export_missing` is the one-shot service of docker-compose.yml. Triton starts only if it succeeds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.remove_model import list_possible_folders, remove_models
from export.__main__ import main as run_export
from export.errors import ExportError, RepositoryError
from export.progress import Progress
from export.publish import recover
from export.sources import default_public_id, find_commit
from export.spec import Precision, Target
from export.verify import verify_each


class ExportSettings(BaseSettings):
    """Settings read from environment variables of the same names in capitals; empty ones count as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    model: str = Field(description="Hub id, or folder of a checkpoint.")
    repository: Path = Field(description="Triton model repository to publish into.")
    name: str | None = Field(None, description="Public id of the model. If unset: the hub id, or the folder's name.")
    revision: str | None = Field(None, description="Commit, tag or branch on the hub.")
    precision: Precision = Field("fp32", description="Precision of weights and arithmetic.")
    target: Target = Field("cpu", description="Hardware that the model will run on.")

    @property
    def public_id(self) -> str:
        """Public id of the model."""
        return self.name or default_public_id(self.model)

    @property
    def arguments(self) -> list[str]:
        """Arguments of `python -m export`."""
        options = {
            "--name": self.name,
            "--revision": self.revision,
            "--precision": self.precision,
            "--target": self.target,
            "--repository": str(self.repository),
        }
        return [self.model, *(word for option, value in options.items() if value for word in (option, value))]


def main() -> int:
    """Export the model if necessary and return the exit status: 0 if the repository contains it, intact."""
    signal.signal(signal.SIGTERM, stop)
    progress = Progress()
    try:
        settings = ExportSettings()
        if prepare(settings, progress):
            progress.say(f"{settings.repository} already contains {settings.public_id}")
            return 0
        return run_export([*settings.arguments, "--replace"])
    except ValidationError as error:
        details = "; ".join(f"{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors())
        sys.stderr.write(f"error: {details}\n")
        return 2
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; the repository is unchanged\n")
        return 130


def stop(signal_number: int, frame: FrameType | None) -> None:
    """Say that the signal has arrived, and end the export as Ctrl-C does, which deletes what is half done.

    Raises:
        KeyboardInterrupt: Always.
    """
    sys.stderr.write(f"{signal.Signals(signal_number).name}: stopping the export\n")
    raise KeyboardInterrupt


def prepare(settings: ExportSettings, progress: Progress) -> bool:
    """Recover and verify the repository, and return whether it contains the model as it is asked for.

    Raises:
        ExportError: Another model of the repository is damaged.
    """
    recover(settings.repository)
    found = verify_each(settings.repository)
    wanted = settings.public_id
    names = {wanted, *list_possible_folders(wanted)}
    for model in found.damaged.keys() - names:
        raise RepositoryError(
            f"{model} is damaged: {found.damaged[model]}. Export it again with MODEL set to it, or remove it:"
            f" docker compose run --rm export python -m deploy.remove_model {model}"
        )
    for model, reason in found.damaged.items():
        progress.say(f"{model} is damaged, and exported again: {reason}")
    if found.damaged:
        remove_models([next(iter(found.damaged))], settings.repository)
    manifest = found.intact.get(wanted)
    if manifest is None:
        return False
    differences = list(find_differences(manifest, settings, progress))
    if differences:
        progress.say(f"{wanted} is exported again: {'; '.join(differences)}")
    return not differences


def find_differences(manifest: Mapping[str, Any], settings: ExportSettings, progress: Progress) -> Iterator[str]:
    """Yield what distinguishes an exported model from what the settings ask for.

    Args:
        manifest: Of the exported model.
        settings: What is asked for. A revision that is no commit is looked up on the hub.
        progress: Where that is told.
    """
    asked = {
        "source": default_public_id(settings.model),
        "precision": settings.precision,
        "target": settings.target,
        "revision": find_commit(settings.model, settings.revision, progress) or manifest["revision"],
    }
    for name, value in asked.items():
        if manifest[name] != value:
            yield f"its {name} is {manifest[name]}, and {value} is asked for"


if __name__ == "__main__":
    sys.exit(main())
