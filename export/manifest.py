"""The manifest: what was exported, from what, how well it agrees, and the sum of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from export.checksums import sha256_files

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class FileEntry:
    """One file of the repository; `path` is relative to it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The JSON of docs/contract.md, field by field."""

    public_id: str
    source: str
    revision: str | None
    created: int  # Unix seconds
    architecture: str
    precision: str
    target: str
    opset: int
    dimensions: int
    max_tokens: int
    pooling: str
    query_prefix: str
    passage_prefix: str
    modalities: tuple[str, ...]
    license: str
    license_text: str
    description: str
    fingerprint: str
    preprocessing: Mapping[str, str]
    validation: Mapping[str, float | int]
    files: tuple[FileEntry, ...]

    def to_json(self) -> str:
        """Return the manifest as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def list_files(models: Path) -> tuple[FileEntry, ...]:
    """Return size and sum of each file below a folder of models.

    `config.pbtxt` is left out: batching, queues and threads are the operator's to change.
    """
    paths = sorted(path for path in models.rglob("*") if path.is_file() and path.name != CONFIG)
    sums = sha256_files(paths)
    return tuple(FileEntry(path.relative_to(models).as_posix(), path.stat().st_size, sums[path]) for path in paths)
