"""Exports the model that the environment names, unless the repository holds it as asked.

`python -m deploy.export_missing` is the one-shot service of docker-compose.yml: Triton starts after it, and not at all
when it fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from export import names
from export.__main__ import main as run_export
from export.errors import ExportError
from export.publish import recover
from export.repository import read_config
from export.sources import default_public_id
from export.spec import Precision, Target
from export.verify import verify


class ExportSettings(BaseSettings):
    """Read once, from environment variables of the same names in capitals; empty ones count as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    model: str = Field(description="Hub id, or folder with a checkpoint.")
    repository: Path = Field(description="Triton model repository to publish into.")
    name: str | None = Field(None, description="Public id to serve it by. Unset: the hub id, or the folder's name.")
    revision: str | None = Field(None, description="Commit, tag or branch of the hub.")
    precision: Precision = Field("fp32", description="Of weights and arithmetic.")
    target: Target = Field("cpu", description="Where it will run.")

    @property
    def public_id(self) -> str:
        """What it will be served by."""
        return self.name or default_public_id(self.model)

    @property
    def arguments(self) -> list[str]:
        """The export's command line."""
        options = {
            "--name": self.name,
            "--revision": self.revision,
            "--precision": self.precision,
            "--target": self.target,
            "--repository": str(self.repository),
        }
        return [self.model, *(word for option, value in options.items() if value for word in (option, value))]


def main() -> int:
    """Return the exit status: 0 when the repository holds the model, unharmed."""
    try:
        settings = ExportSettings()
        recover(settings.repository)
        served = settings.public_id in verify(settings.repository)
        manifest = read_manifest(settings.repository, settings.public_id) if served else {}
    except ValidationError as error:
        wrong = "; ".join(f"{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors())
        sys.stderr.write(f"error: {wrong}\n")
        return 2
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if served and (manifest["precision"], manifest["target"]) == (settings.precision, settings.target):
        sys.stderr.write(f"{settings.repository} holds {settings.public_id} already\n")
        return 0
    return run_export([*settings.arguments, *(["--replace"] if served else [])])


def read_manifest(repository: Path, public_id: str) -> Mapping[str, Any]:
    """Return the manifest of a model that the repository serves.

    Raises:
        RepositoryError: Its config cannot be read.
    """
    config = read_config(repository / f"{names.slug(public_id)}_{names.TEXT}")
    manifest: Mapping[str, Any] = json.loads(config.parameters["manifest"].string_value)
    return manifest


if __name__ == "__main__":
    sys.exit(main())
