"""Publishing whole or not at all, whatever happens to the process.

Models are staged in `.<repository>.staging-*` beside the repository, on its file system: inside of it Triton would
take even a hidden folder for a model. When everything is on the disk, `journal.json` is written into the staging
folder: from then on the publication is decided, and `recover` finishes it if the process dies between two renames.
Steps are moved before ensembles, so what a server finds in between is never an ensemble without its members.

A staging folder is locked by the process that fills it; the lock ends with the process, so `recover` can tell an export
that is running from one that was killed. This module imports only the standard library: the launcher calls `recover` at
each start.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from export.disk import disk_errors
from export.errors import ModelExistsError, RepositoryError

_JOURNAL = "journal.json"
_LOCK = "lock"
_MODELS = "models"
_RETIRED = "retired"


@dataclass(frozen=True)
class _Journal:
    """What is decided: models to put away first, and models to move in, in this order."""

    retire: Sequence[str]
    publish: Sequence[str]


@dataclass
class Staging:
    """A folder beside the repository that models are written into; a context manager that leaves nothing behind."""

    repository: Path
    folder: Path = field(init=False)

    def __enter__(self) -> Staging:
        """Create and lock the folder.

        Raises:
            NoSpaceError, RepositoryError: it cannot be created.
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
                if self.folder.exists():  # else another export swept it away before it was locked
                    break
                os.close(self._lock)
            self.models.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete what is left: after `publish`, only what the new models replaced."""
        _sweep(self.folder)
        os.close(self._lock)

    @property
    def models(self) -> Path:
        """The folder that will become part of the repository."""
        return self.folder / _MODELS

    def publish(self, names: Sequence[str], retire: Iterable[str] = ()) -> None:
        """Move the staged models into the repository, in the order given.

        Args:
            names: the staged models, steps before ensembles.
            retire: models of the repository that go away in the same stroke, ensembles before steps.

        Raises:
            ModelExistsError: the repository holds one of them already; it is as it was.
            NoSpaceError, RepositoryError: the repository is as it was, or `recover` finishes the move.
        """
        with disk_errors(self.repository):
            self.repository.mkdir(parents=True, exist_ok=True)
            sync_tree(self.models)
            journal = _Journal(retire=list(retire), publish=list(names))
            _write_synced(self.folder / f"{_JOURNAL}.new", json.dumps(vars(journal)).encode())
            (self.folder / f"{_JOURNAL}.new").rename(self.folder / _JOURNAL)
            _sync_folder(self.folder)
            _move(journal, self.folder, self.repository)


def recover(repository: Path) -> tuple[str, ...]:
    """Finish publications that a killed export had decided, and delete what other killed exports left.

    Returns:
        The models that were moved into the repository.

    Raises:
        NoSpaceError, RepositoryError: the file system refuses.
    """
    repository = repository.resolve()
    finished: list[str] = []
    with disk_errors(repository):
        for folder in _list_stagings(repository):
            finished += _recover_one(folder, repository)
    return tuple(finished)


def _list_stagings(repository: Path) -> list[Path]:
    if not repository.parent.is_dir():
        return []
    return sorted(path for path in repository.parent.iterdir() if path.name.startswith(_prefix(repository)))


def _recover_one(folder: Path, repository: Path) -> Sequence[str]:
    try:
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return ()  # its export has just ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _finish(folder, repository)
    except BlockingIOError:
        return ()  # its export is running
    finally:
        os.close(lock)


def _finish(folder: Path, repository: Path) -> Sequence[str]:
    """Finish what a dead export decided, if it had got so far, and delete its folder."""
    journal = _read_journal(folder)
    waiting: list[str] = []
    if journal is not None:
        waiting = [name for name in journal.publish if (folder / _MODELS / name).exists()]
        try:
            _move(journal, folder, repository)
        except ModelExistsError:  # the name was taken in the meantime
            waiting = []
    _sweep(folder)
    return waiting


def _sweep(folder: Path) -> None:
    """Delete a staging folder, unless it holds a decided publication: that is for `recover` to finish."""
    if not (folder / _JOURNAL).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _read_journal(folder: Path) -> _Journal | None:
    try:
        return _Journal(**json.loads((folder / _JOURNAL).read_text("utf-8")))
    except FileNotFoundError:
        return None


def _move(journal: _Journal, folder: Path, repository: Path) -> None:
    """Do what the journal says, from wherever it was interrupted: each rename is done once.

    Raises:
        ModelExistsError: a name is taken; always the first one, so nothing has been moved. The journal is withdrawn.
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
    """Rename one model into the repository; a rename onto a folder with content fails, and so settles a race."""
    try:
        staged.rename(published)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise ModelExistsError(f"{published.parent} already holds {published.name}") from error
        raise


def sync_tree(folder: Path) -> None:
    """Force every file and folder below `folder` onto the disk."""
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
    """A rename cannot cross file systems."""
    if repository.is_dir() and repository.stat().st_dev != repository.parent.stat().st_dev:
        raise RepositoryError(
            f"{repository} is a mount point: name a folder inside of it, like {repository / 'models'}"
        )
