"""Exports the model named by the environment, unless the repository contains it with the same precision and target.

`python -m deploy.export_missing` is the one-shot service of docker-compose.yml. Triton starts only if it succeeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from export.__main__ import main as run_export
from export.errors import ExportError
from export.publish import recover
from export.sources import default_public_id
from export.spec import Precision, Target
from export.verify import verify


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
    try:
        settings = ExportSettings()
        recover(settings.repository)
        manifest = verify(settings.repository).get(settings.public_id)
    except ValidationError as error:
        details = "; ".join(f"{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors())
        sys.stderr.write(f"error: {details}\n")
        return 2
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if manifest and (manifest["precision"], manifest["target"]) == (settings.precision, settings.target):
        sys.stderr.write(f"{settings.repository} already contains {settings.public_id}\n")
        return 0
    return run_export([*settings.arguments, *(["--replace"] if manifest else [])])


if __name__ == "__main__":
    sys.exit(main())
