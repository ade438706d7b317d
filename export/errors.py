"""What can go wrong in an export, as domain words.

ExportError
├── SourceError                 the checkpoint cannot be had
│   └── HubUnreachableError     the model hub does not answer
├── CheckpointError             the checkpoint is there, and is not what an export needs
│   ├── CheckpointFileMissingError
│   └── UnknownArchitectureError
├── UnservablePrecisionError    no backend runs that precision on that target
├── ChecksumError               a file's bytes are not the ones that were promised
├── ValidationError             the built graphs do not compute what the reference computes
├── NoSpaceError                the disk is full, or would be
├── ModelExistsError            the repository already serves a model of that name
└── RepositoryError             the repository folder cannot be written or read

Every message is one line, fit for a terminal: the command line prints it after `error: ` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class ExportError(Exception):
    """The root of everything an export refuses to do."""


class SourceError(ExportError):
    """A checkpoint cannot be found or downloaded."""


class HubUnreachableError(SourceError):
    """The model hub does not answer."""


class CheckpointError(ExportError):
    """A checkpoint holds something that cannot be exported."""


class CheckpointFileMissingError(CheckpointError):
    """A checkpoint lacks a file that the export reads."""

    def __init__(self, folder: Path, name: str, hint: str = "") -> None:
        """Name the file and the folder that should hold it."""
        super().__init__(f"{folder} has no {name}" + (f": {hint}" if hint else ""))


class UnknownArchitectureError(CheckpointError):
    """No exporter is written for this kind of model."""

    def __init__(self, found: str, known: Iterable[str]) -> None:
        """Name what `config.json` says and what would have been understood."""
        super().__init__(f"architecture {found!r} is not supported (supported: {', '.join(sorted(known))})")


class UnservablePrecisionError(ExportError):
    """A precision was asked for that cannot run where the model is to run."""


class ChecksumError(ExportError):
    """A file's bytes differ from what its publisher or the manifest recorded."""


class ValidationError(ExportError):
    """The exported graphs disagree with the reference."""


class NoSpaceError(ExportError):
    """There is no room on the disk for what is to be written."""


class ModelExistsError(ExportError):
    """The repository already holds a model whose name the new one would take."""


class RepositoryError(ExportError):
    """The model repository cannot be read or written."""
