"""A Python to start processes with, for code that may itself run inside another program."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def find_interpreter(executable: str | None = sys.executable) -> str:
    """Find the interpreter of this Python's version, also where Triton's stub embeds it.

    There `sys.executable` may be empty or the stub itself.

    Args:
        executable: What this process calls its interpreter.

    Returns:
        An absolute path.

    Raises:
        FileNotFoundError: If none is beside this Python's libraries or on PATH.
    """
    for candidate in _list_candidates(executable):
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f"no python{_VERSION} was found to decode images with")


def _list_candidates(executable: str | None) -> Iterator[str]:
    if executable and re.fullmatch(r"python[\d.]*", Path(executable).name):
        yield os.path.abspath(executable)
    for prefix in (sys.prefix, sys.base_prefix):
        yield str(Path(prefix, "bin", f"python{_VERSION}"))
    for name in (f"python{_VERSION}", "python3"):
        found = shutil.which(name)
        if found:
            yield os.path.abspath(found)
