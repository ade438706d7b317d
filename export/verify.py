"""Checking a repository against its manifests, before it is served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from export.checksums import check_files
from export.errors import ChecksumError, RepositoryError
from export.manifest import CONFIG
from export.repository import read_config


def verify(repository: Path) -> tuple[str, ...]:
    """Compare every file that a manifest lists with its size and sum.

    Models without a manifest, which something else than this project's export has put there, are not looked at.

    Returns:
        The public ids whose files are as they were exported.

    Raises:
        ChecksumError: a file is missing or has changed; the message names it.
        RepositoryError: a config or a manifest cannot be read.
    """
    sums: dict[str, str] = {}
    public_ids = []
    for manifest in _read_manifests(repository):
        public_ids.append(str(manifest["public_id"]))
        for entry in manifest["files"]:
            _check_size(repository, entry["path"], entry["bytes"])
            sums[entry["path"]] = entry["sha256"]
    check_files(repository, sums)
    return tuple(public_ids)


def _read_manifests(repository: Path) -> Iterator[Mapping[str, Any]]:
    for config in sorted(repository.glob(f"*/{CONFIG}")):
        parameters = read_config(config.parent).parameters
        if "manifest" not in parameters:
            continue
        try:
            yield json.loads(parameters["manifest"].string_value)
        except ValueError as error:
            raise RepositoryError(f"the manifest in {config} is not valid JSON") from error


def _check_size(repository: Path, path: str, expected_bytes: int) -> None:
    """Catch a file that was cut off without reading the others."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise RepositoryError(f"a manifest in {repository} names a file outside of it: {path}")
    file = repository / path
    if not file.is_file():
        raise ChecksumError(f"{file} is missing")
    if file.stat().st_size != expected_bytes:
        raise ChecksumError(f"{file} has {file.stat().st_size} bytes, its manifest says {expected_bytes}")
