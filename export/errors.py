"""Errors of an export.

ExportError
├── SourceError                 the checkpoint cannot be found or downloaded
│   └── HubUnreachableError     the model hub does not respond
├── CheckpointError             the checkpoint holds something that cannot be exported
│   ├── CheckpointFileMissingError
│   └── UnknownArchitectureError
├── ServingOptionError          `--set` names no option, or a value that is not allowed
├── UnservablePrecisionError    no backend runs the precision on the target
├── ChecksumError               a file differs from its published or recorded sum
├── ValidationError             the graphs disagree with the reference
├── NoSpaceError                the disk is full, or would be
├── ModelExistsError            the repository already holds a model with that name
└── RepositoryError             the repository cannot be read or written

Every message is one line for a terminal: the command line prints it after `error: ` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class ExportError(Exception):
    """Base class of the errors of an export."""


class SourceError(ExportError):
    """A checkpoint cannot be found or downloaded."""


class HubUnreachableError(SourceError):
    """The model hub does not respond."""


class CheckpointError(ExportError):
    """A checkpoint holds something that cannot be exported."""


class CheckpointFileMissingError(CheckpointError):
    """A checkpoint lacks a file that the export needs."""

    def __init__(self, folder: Path, name: str, hint: str = "") -> None:
        super().__init__(f"{folder} has no {name}" + (f": {hint}" if hint else ""))


class UnknownArchitectureError(CheckpointError):
    """The architecture of a checkpoint is not supported."""

    def __init__(self, found: str, known: Iterable[str]) -> None:
        super().__init__(f"architecture {found!r:.60} is not supported (supported: {', '.join(sorted(known))})")


class ServingOptionError(ExportError):
    """A serving option does not exist, or its value is not allowed."""


class UnservablePrecisionError(ExportError):
    """The model cannot run in the requested precision on the requested target."""


class ChecksumError(ExportError):
    """A file differs from the sum that its publisher or the manifest recorded."""


class ValidationError(ExportError):
    """The exported graphs do not compute what the reference computes."""


class NoSpaceError(ExportError):
    """The disk has no space for the files of the export."""


class ModelExistsError(ExportError):
    """The repository already holds a model with the name of the new one."""


class RepositoryError(ExportError):
    """The model repository cannot be read or written."""
