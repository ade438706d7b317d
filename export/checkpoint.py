"""A checkpoint folder: its weights and the JSON files beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from export.errors import CheckpointError, CheckpointFileMissingError
from export.safetensors_files import SafetensorsFiles


class Checkpoint:
    """The files of one model, read when asked for."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; nothing is read yet."""
        self.folder = folder

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The numbers of the architecture: `config.json`."""
        return self.require_json("config.json")

    @cached_property
    def weights(self) -> SafetensorsFiles:
        """The named tensors."""
        return SafetensorsFiles(self.folder)

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """The whole tokenizer as the `tokenizers` library reads it: `tokenizer.json`."""
        return self.require_json("tokenizer.json")

    def json(self, name: str) -> Any:
        """Return the content of a JSON file, or None where the checkpoint has no such file.

        Raises:
            CheckpointError: the file is not JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON") from error

    def require_json(self, name: str) -> Mapping[str, Any]:
        """Return the object in a JSON file.

        Raises:
            CheckpointFileMissingError: there is no such file.
            CheckpointError: the file is not a JSON object.
        """
        content = self.json(name)
        if content is None:
            raise CheckpointFileMissingError(self.folder, name)
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.folder / name} is not a JSON object")
        return content

    def text(self, name: str) -> str | None:
        """Return the content of a text file, or None where the checkpoint has no such file."""
        path = self.folder / name
        return path.read_text("utf-8", errors="replace") if path.is_file() else None
