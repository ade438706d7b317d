"""The models that a repository holds, and how to tell that one was published, replaced or removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from export.errors import RepositoryError
from export.publish import is_publishing
from export.repository import CONFIG, read_config
from export.verify import verify_each

PUBLIC_ID = "public_id"
POLL_INTERVAL_S = 0.1


@dataclass(frozen=True)
class PublishedModel:
    """A model in the repository.

    Attributes:
        name: Its public id; the name of its folder if it has none, because another program made it.
        entries: What clients call: its ensembles, each with the names of its steps.
        stamp: Path, inode, size and time of change of each of its files; differs whenever a file does.
        is_readable: Whether the configurations of all its folders are.
    """

    name: str
    entries: Mapping[str, tuple[str, ...]]
    stamp: frozenset[tuple[str, int, int, int]]
    is_readable: bool = True

    def __hash__(self) -> int:
        """Return the hash of the stamp, which says it all."""
        return hash(self.stamp)

    @property
    def steps(self) -> list[str]:
        """Folders of the steps of all ensembles."""
        return list(dict.fromkeys(step for steps in self.entries.values() for step in steps))

    def find_damage(self, repository: Path) -> str | None:
        """Compare the model's files with its manifest; return what is wrong with them, or None."""
        return next(iter(verify_each(repository, self.entries).damaged.values()), None)


def read_published(repository: Path) -> Mapping[str, PublishedModel] | None:
    """Return the models of a repository by name; None while it changes."""
    if is_publishing(repository):
        return None
    try:
        folders = sorted(path.parent.name for path in repository.glob(f"*/{CONFIG}"))
        return dict(_group_folders(repository, folders))
    except FileNotFoundError:
        return None


def wait_for_published(repository: Path) -> Mapping[str, PublishedModel]:
    """Return the models of a repository by name, once it does not change."""
    while (published := read_published(repository)) is None:
        time.sleep(POLL_INTERVAL_S)
    return published


def _group_folders(repository: Path, folders: list[str]) -> Iterator[tuple[str, PublishedModel]]:
    """Yield the models that a repository's folders make, by name."""
    entries: dict[str, dict[str, tuple[str, ...]]] = {}
    readable = set()
    for folder in folders:
        with suppress(RepositoryError):  # Triton has the reason
            config = read_config(repository / folder)
            readable.add(folder)
            if config.HasField("ensemble_scheduling"):
                steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
                public_id = config.parameters[PUBLIC_ID].string_value if PUBLIC_ID in config.parameters else folder
                entries.setdefault(public_id, {})[folder] = steps
    used = {folder for group in entries.values() for entry, steps in group.items() for folder in (entry, *steps)}
    for folder in folders:
        if folder not in used:
            entries[folder] = {folder: ()}
    for name, group in entries.items():
        own = {folder for entry, steps in group.items() for folder in (entry, *steps)}
        stamp = frozenset(_stamp_files(repository, own))
        yield name, PublishedModel(name, group, stamp, is_readable=readable.issuperset(own))


def _stamp_files(repository: Path, folders: set[str]) -> Iterator[tuple[str, int, int, int]]:
    for folder in folders:
        for path in (repository / folder).rglob("*"):
            if path.is_file():
                status = path.stat()
                yield (
                    path.relative_to(repository).as_posix(),
                    status.st_ino,
                    status.st_size,
                    status.st_mtime_ns,
                )
