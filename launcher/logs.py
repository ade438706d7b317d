"""Log files of child processes, which write to them directly: rotation, and their last lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TAIL_LINES = 15
TAIL_BYTES = 64 * 1024


def rotate_log(path: Path, max_bytes: int, backups: int) -> None:
    """Move a log's content to `<name>.1` if it is above its limit, and that of earlier backups one further.

    The process keeps its file: the content is copied, then cut off. Lines written between the two are lost. A pipe
    would lose none, but fill up and block the process while the launcher is stopped.

    Args:
        path: Log file, opened by the process for appending.
        max_bytes: Size above which it is rotated.
        backups: Number of earlier files to keep; the oldest is dropped.
    """
    if not path.exists() or path.stat().st_size <= max_bytes:
        return
    names = [path.with_name(f"{path.name}.{number}") for number in range(1, backups + 1)]
    try:
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        if names:
            shutil.copyfile(path, names[0])
    except OSError:  # a full disk, which the next line relieves
        names[0].unlink(missing_ok=True)
    os.truncate(path, 0)


def read_tail(path: Path) -> str:
    """Return the last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
