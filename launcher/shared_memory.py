"""The shared memory between Triton and its Python stubs: regions left behind by dead servers, and room for new ones."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from export.errors import RepositoryError
from export.repository import CONFIG, read_config
from launcher.errors import SharedMemoryFullError
from launcher.triton import SHARED_MEMORY_BYTES

FOLDER = Path("/dev/shm")  # noqa: S108 - where the C library keeps shared memory
REGIONS = "triton_*_backend_shm_region_*"


def remove_dead_regions(folder: Path = FOLDER) -> int:
    """Remove the regions that no process has open any more, and return their number.

    A killed Triton removes none of its regions, of 16 MiB and more each. Those of running servers stay, also of servers
    in other containers that share the folder.

    Args:
        folder: File system of shared memory.
    """
    removed = 0
    for path in folder.glob(REGIONS):
        with suppress(OSError):  # another user's, or gone in the meantime
            if not is_open(path):
                path.unlink()
                removed += 1
    return removed


def is_open(path: Path) -> bool:
    """Return whether any process of this machine has the file open or mapped for writing.

    The kernel knows, whatever the process's namespaces: it grants a read lease only on a file without writers
    (fcntl(2), `F_SETLEASE`).

    Raises:
        OSError: The file belongs to another user, or is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)  # ends the lease
    return False


def check_room(repository: Path, folder: Path = FOLDER) -> None:
    """Check that the Python stubs of a repository's models find room for their regions.

    Args:
        repository: Model repository.
        folder: File system of shared memory.

    Raises:
        SharedMemoryFullError: There is too little.
    """
    needed_bytes = SHARED_MEMORY_BYTES * (count_stubs(repository) + 1)  # one for requests, which let regions grow
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise SharedMemoryFullError(folder, free_bytes, needed_bytes)


def count_stubs(repository: Path) -> int:
    """Return how many Python stubs Triton starts: one for each instance of each step."""
    stubs = 0
    for path in repository.glob(f"*/{CONFIG}"):
        with suppress(RepositoryError):  # Triton does not start it either
            config = read_config(path.parent)
            if not config.HasField("ensemble_scheduling"):
                stubs += sum(max(1, group.count) for group in config.instance_group) or 1
    return stubs
