"""SHA-256 of files, several at a time: hashlib releases the interpreter lock."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from export.errors import ChecksumError

_CHUNK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the sum of each file, hashing on as many threads as there are cores."""
    ordered = list(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(ordered, pool.map(sha256_file, ordered), strict=True))


def check_files(folder: Path, sums: Mapping[str, str]) -> None:
    """Compare files of a folder, by relative path, with their promised sums.

    Raises:
        ChecksumError: naming the first file that is absent or differs.
    """
    for name in sums:
        if not (folder / name).is_file():
            raise ChecksumError(f"{folder / name} is missing")
    found = sha256_files(folder / name for name in sums)
    for name, expected in sums.items():
        if found[folder / name] != expected:
            raise ChecksumError(f"{folder / name} has sha256 {found[folder / name]}, expected {expected}")
