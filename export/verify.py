"""SHA-256 sums of files, and the check of a repository against its manifests before it is served."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from export.errors import ChecksumError, RepositoryError
from export.repository import CONFIG, read_config


@dataclass(frozen=True)
class Verification:
    """The models of a repository whose files are as they were exported, and the others.

    Attributes:
        intact: Manifests by public id.
        damaged: Why each of the others must not be served, by public id; by folder where no manifest can be read.
    """

    intact: Mapping[str, Mapping[str, Any]]
    damaged: Mapping[str, str]


def verify_each(repository: Path, folders: Container[str] | None = None) -> Verification:
    """Compare the size and the SHA-256 sum of every file that a manifest lists.

    Models without a manifest, which this project did not export, are skipped.

    Args:
        repository: Model repository.
        folders: Those whose manifests to read; all if None.
    """
    intact: dict[str, Mapping[str, Any]] = {}
    damaged: dict[str, str] = {}
    for config in sorted(repository.glob(f"*/{CONFIG}")):
        if folders is not None and config.parent.name not in folders:
            continue
        public_id = config.parent.name
        try:
            for manifest in _read_manifest(config):
                public_id = str(manifest["public_id"])
                _check_manifest(repository, manifest)
                intact[public_id] = manifest
        except (ChecksumError, RepositoryError) as error:
            damaged[public_id] = str(error)
    return Verification(intact, damaged)


def check_files(folder: Path, sums: Mapping[str, str]) -> None:
    """Compare files with their expected SHA-256 sums.

    Args:
        folder: Folder of the files.
        sums: Hexadecimal sums by path relative to the folder.

    Raises:
        ChecksumError: A file is missing or differs; the message names the first.
    """
    for name in sums:
        if not (folder / name).is_file():
            raise ChecksumError(f"{folder / name} is missing")
    found = sha256_files(folder / name for name in sums)
    for name, expected in sums.items():
        if found[folder / name] != expected:
            raise ChecksumError(f"{folder / name} has sha256 {found[folder / name]}, expected {expected}")


def sha256_files(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the hexadecimal SHA-256 sum of each file, hashing on every core: hashlib releases the interpreter lock."""
    ordered = list(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(ordered, pool.map(_sha256_file, ordered), strict=True))


def _sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(config: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the manifest in a model's config, if it carries one."""
    parameters = read_config(config.parent).parameters
    if "manifest" not in parameters:
        return
    try:
        yield json.loads(parameters["manifest"].string_value)
    except ValueError as error:
        raise RepositoryError(f"the manifest in {config} is not valid JSON") from error


def _check_manifest(repository: Path, manifest: Mapping[str, Any]) -> None:
    sums = {}
    for entry in manifest["files"]:
        _check_size(repository, entry["path"], entry["bytes"])
        sums[entry["path"]] = entry["sha256"]
    check_files(repository, sums)


def _check_size(repository: Path, path: str, expected_bytes: int) -> None:
    """Detect a truncated file before any file is hashed."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise RepositoryError(f"a manifest in {repository} names a file outside it: {path}")
    file = repository / path
    if not file.is_file():
        raise ChecksumError(f"{file} is missing")
    if file.stat().st_size != expected_bytes:
        raise ChecksumError(f"{file} has {file.stat().st_size} bytes, its manifest says {expected_bytes}")
