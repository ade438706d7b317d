"""Room on the disk: asked for before writing, and named when it runs out during it."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import NoSpaceError, RepositoryError

# EDQUOT: the user's quota; EFBIG: a limit on the size of one file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# NumPy reports a write that the disk cut short without an error number.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def require_free_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        NoSpaceError: fewer than `needed_bytes` are free where `folder` is.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NoSpaceError(f"{folder} has {_mib(free)} free, and the export needs about {_mib(needed_bytes)}")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's errors while writing below `folder` into words.

    Raises:
        NoSpaceError: the disk, the quota or the largest allowed file is full.
        RepositoryError: anything else that the file system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or _SHORT_WRITE.search(str(error)):
            raise NoSpaceError(f"no space left for {folder} ({error.strerror or error})") from error
        raise RepositoryError(f"{folder} cannot be written: {error.strerror or error}") from error


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
