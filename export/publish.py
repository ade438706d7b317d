"""Atomic publication: all models of an export reach the repository or none does, even if the process is killed.

Models are staged in `.<repository>.staging-*` beside the repository, on the same file system; inside it, Triton would
load even a hidden folder as a model. When everything is on the disk, `journal.json` is written to the staging folder.
From then on the publication is decided, and `recover` finishes it if the process dies between two renames. Steps are
moved before ensembles, so a server never finds an ensemble without its members.

The process that fills a staging folder holds a lock on it. The lock ends with the process, so `recover` can distinguish
a running export from a killed one. This module imports only the standard library: the launcher calls `recover` at each
start.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from export.errors import ModelExistsError, NoSpaceError, RepositoryError

_JOURNAL = "journal.json"
_LOCK = "lock"
_MODELS = "models"
_RETIRED = "retired"

# EDQUOT: the user's quota; EFBIG: the limit on the size of a file.
_FULL_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# NumPy reports a short write without an error number.
_MODEL_NAME = re.compile(r"[a-z0-9_]+")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def require_free_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start an export that cannot finish.

    Raises:
        NoSpaceError: The file system of `folder` has less free space than `needed_bytes`.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NoSpaceError(f"{folder} has {_mib(free)} free, and the export needs about {_mib(needed_bytes)}")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an `OSError` raised while writing below `folder` into an `ExportError`.

    Raises:
        NoSpaceError: The disk, the quota or the file size limit is exhausted.
        RepositoryError: The file system refused for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK_ERRNOS or _SHORT_WRITE.search(str(error)):
            raise NoSpaceError(f"no space left for {folder} ({error.strerror or error})") from error
        raise RepositoryError(f"{folder} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Journal:
    """A decided publication: models to move out first, then models to move in, each in order."""

    retire: Sequence[str]
    publish: Sequence[str]


@dataclass
class Staging:
    """A context manager for a folder beside the repository in which models are written; it leaves nothing behind.

    Args:
        repository: Repository to publish into, which need not exist yet.
    """

    repository: Path
    folder: Path = field(init=False)

    def __enter__(self) -> Self:
        """Create and lock the folder.

        Raises:
            NoSpaceError: The disk is full.
            RepositoryError: The folder cannot be created.
        """
        self.repository = self.repository.resolve()
        parent = self.repository.parent
        with disk_errors(self.repository):
            parent.mkdir(parents=True, exist_ok=True)
            _require_same_filesystem(self.repository)
            while True:
                self.folder = Path(tempfile.mkdtemp(prefix=_prefix(self.repository), dir=parent))
                self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.folder.exists():  # another export may have swept it away before the lock
                    break
                os.close(self._lock)
            self.models.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the folder, which after `publish` holds only the replaced models."""
        _sweep(self.folder)
        os.close(self._lock)

    @property
    def models(self) -> Path:
        """The folder that will become part of the repository."""
        return self.folder / _MODELS

    def publish(self, names: Sequence[str], retire: Iterable[str] = ()) -> None:
        """Move the staged models into the repository, in the order given.

        Args:
            names: Staged models, steps before ensembles.
            retire: Models of the repository to remove in the same publication, ensembles before steps.

        Raises:
            ModelExistsError: The repository already holds one of the models; it is unchanged.
            NoSpaceError: The disk is full; the repository is unchanged, or `recover` finishes the publication.
            RepositoryError: The file system refused, with the same outcome.
        """
        with disk_errors(self.repository):
            self.repository.mkdir(parents=True, exist_ok=True)
            _sync_tree(self.models)
            journal = _Journal(retire=list(retire), publish=list(names))
            _write_synced(self.folder / f"{_JOURNAL}.new", json.dumps(vars(journal)).encode())
            (self.folder / f"{_JOURNAL}.new").rename(self.folder / _JOURNAL)
            _sync_folder(self.folder)
            _move(journal, self.folder, self.repository)


def recover(repository: Path) -> tuple[str, ...]:
    """Finish the publications that killed exports had decided, and delete the other staging folders they left.

    Returns:
        The models that were moved into the repository.

    Raises:
        NoSpaceError: The disk is full.
        RepositoryError: The file system refused.
    """
    repository = repository.resolve()
    finished: list[str] = []
    with disk_errors(repository):
        for folder in _list_stagings(repository):
            finished += _recover_one(folder, repository)
    return tuple(finished)


def is_publishing(repository: Path) -> bool:
    """Return whether a decided publication is unfinished: until then, the repository is between two states."""
    return any((folder / _JOURNAL).exists() for folder in _list_stagings(repository.resolve()))


def _list_stagings(repository: Path) -> list[Path]:
    if not repository.parent.is_dir():
        return []
    prefix = _prefix(repository)
    return sorted(path for path in repository.parent.iterdir() if path.name.startswith(prefix) and _is_own(path))


def _is_own(path: Path) -> bool:
    """Return whether a path is a folder of this user: what others leave beside a repository is not published."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _recover_one(folder: Path, repository: Path) -> Sequence[str]:
    try:
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return ()  # the export has just ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _finish(folder, repository)
    except BlockingIOError:
        return ()  # the export is running
    finally:
        os.close(lock)


def _finish(folder: Path, repository: Path) -> Sequence[str]:
    """Finish the publication of a dead export, if it was decided, and delete the staging folder."""
    journal = _read_journal(folder)
    waiting: list[str] = []
    if journal is not None:
        waiting = [name for name in journal.publish if (folder / _MODELS / name).exists()]
        try:
            _move(journal, folder, repository)
        except ModelExistsError:  # another export took the name in the meantime
            waiting = []
    _sweep(folder)
    return waiting


def _sweep(folder: Path) -> None:
    """Delete a staging folder, unless it holds a decided publication for `recover` to finish."""
    if not (folder / _JOURNAL).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _read_journal(folder: Path) -> _Journal | None:
    """Return the journal of a staging folder, or None if it has none; one that names anything but models is refused."""
    path = folder / _JOURNAL
    try:
        journal = _Journal(**json.loads(path.read_text("utf-8")))
        is_valid = all(_MODEL_NAME.fullmatch(name) for name in (*journal.retire, *journal.publish))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        is_valid = False
    if not is_valid:
        raise RepositoryError(f"{path} is damaged: delete {folder} if no export is running")
    return journal


def _move(journal: _Journal, folder: Path, repository: Path) -> None:
    """Do the renames of the journal that have not been done yet.

    Raises:
        ModelExistsError: A name is taken. It is always the first, so nothing has been moved; the journal is deleted.
    """
    staged, retired = folder / _MODELS, folder / _RETIRED
    retired.mkdir(exist_ok=True)
    for name in journal.retire:
        still_old = (staged / name).exists() or name not in journal.publish
        if still_old and (repository / name).exists() and not (retired / name).exists():
            (repository / name).rename(retired / name)
    try:
        for name in journal.publish:
            if (staged / name).exists():
                _move_in(staged / name, repository / name)
        _sync_folder(repository)
    except ModelExistsError:
        (folder / _JOURNAL).unlink()
        raise
    (folder / _JOURNAL).unlink()


def _move_in(staged: Path, published: Path) -> None:
    """Rename one model into the repository; renaming onto a folder with content fails, which settles races."""
    try:
        staged.rename(published)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise ModelExistsError(f"{published.parent} already holds {published.name}") from error
        raise


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync_file(Path(path) / name)
        _sync_folder(Path(path))


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(repository: Path) -> str:
    return f".{repository.name}.staging-"


def _require_same_filesystem(repository: Path) -> None:
    """Refuse a mount point, since a rename cannot cross file systems."""
    if repository.is_dir() and repository.stat().st_dev != repository.parent.stat().st_dev:
        raise RepositoryError(
            f"{repository} is a mount point: choose a folder inside it, such as {repository / 'models'}"
        )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
