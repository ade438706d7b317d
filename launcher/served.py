"""The folder that Triton reads: what it is to load, under the names that it is to have.

It holds hard links to the files of the repository, so that a model which is replaced there stays whole here until
Triton serves the new one, also if Triton is restarted in between.
"""

from __future__ import annotations

import compileall
import os
import shutil
import tempfile
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from export.errors import RepositoryError
from export.repository import CONFIG, read_config
from export.triton import to_text
from launcher.published import PublishedModel


@dataclass(frozen=True)
class ServedModel:
    """A model that Triton is to load.

    Attributes:
        published: As the repository had it.
        steps: The names that Triton knows its steps by, by their folders in the repository; empty if they must not
            be loaded.
        is_loaded: Whether Triton has loaded it.
    """

    published: PublishedModel
    steps: Mapping[str, str] = field(default_factory=dict)
    is_loaded: bool = False

    @property
    def ensembles(self) -> Mapping[str, tuple[str, ...]]:
        """The steps of each ensemble, in Triton's names."""
        return {
            entry: tuple(self.steps.get(step, step) for step in steps)
            for entry, steps in self.published.entries.items()
            if steps
        }


def name_steps(model: PublishedModel, taken: Container[str]) -> dict[str, str]:
    """Return a free name for each step of a model: its own, or that with a number while the old step is loaded."""
    names = {}
    for step in model.steps:
        numbered = (f"{step}_{number}" for number in count(2))
        names[step] = step if step not in taken else next(name for name in numbered if name not in taken)
    return names


class ServedFolder:
    """The folder, in which models appear and disappear by one rename each, while Triton polls it.

    Steps are folders in it. Entries are symbolic links to folders beside it, since only these can be exchanged.

    Args:
        path: The folder.
        repository: Where models are published.
    """

    def __init__(self, path: Path, repository: Path) -> None:
        self.path = path
        self.staging = path.with_name(f"{path.name}.staging")
        self._entries = path.with_name(f"{path.name}.entries")
        self._repository = repository

    def clear(self) -> None:
        """Make the folder empty."""
        self.delete()
        for folder in (self.path, self.staging, self._entries):
            folder.mkdir(parents=True)

    def delete(self) -> None:
        """Delete the folder, which keeps the files of models that have been removed from the repository."""
        for folder in (self.path, self.staging, self._entries):
            shutil.rmtree(folder, ignore_errors=True)

    def clear_staging(self) -> None:
        """Delete what was staged and not moved in, and what was removed or replaced."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        used = {path.readlink() for path in self.path.iterdir() if path.is_symlink()}
        for content in self._entries.iterdir():
            if content not in used:
                shutil.rmtree(content, ignore_errors=True)

    def list_names(self) -> set[str]:
        """Return the names of all models in the folder."""
        return {path.name for path in self.path.iterdir()}

    def stage(self, model: ServedModel) -> None:
        """Link the entries of a model, and its steps under their new names, in the staging folder.

        Raises:
            OSError: A file is no longer there, or cannot be linked.
        """
        for entry in model.published.entries:
            self._link_model(entry, entry, model.steps)
        for step, name in model.steps.items():
            self._link_model(step, name, model.steps)

    def add_steps(self, names: Iterable[str]) -> None:
        """Move staged steps into the folder."""
        for name in names:
            (self.staging / name).rename(self.path / name)

    def put_entry(self, name: str) -> Path | None:
        """Move a staged entry into the folder, in place of the one of that name if there is one.

        Returns:
            The content of the old one, for `point_entry`; None if there is none.
        """
        old = (self.path / name).readlink() if (self.path / name).is_symlink() else None
        content = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self._entries))
        (self.staging / name).rename(content)
        self.point_entry(name, content)
        return old

    def point_entry(self, name: str, content: Path) -> None:
        """Let an entry have a content that another call has put there."""
        new = self.staging / f"{name}.link"
        new.symlink_to(content)
        new.replace(self.path / name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove models from the folder."""
        for name in names:
            with suppress(FileNotFoundError):
                (self.path / name).rename(Path(tempfile.mkdtemp(dir=self.staging)) / name)

    def _link_model(self, source_name: str, target_name: str, names: Mapping[str, str]) -> None:
        """Create a folder like that of a model in the repository, whose configuration has the new names."""
        source, target = self._repository / source_name, self.staging / target_name
        target.mkdir()
        for path in source.iterdir():
            if path.name != CONFIG:
                link(path, target / path.name)
        shutil.copyfile(source / CONFIG, target / CONFIG)
        # Python's backend would write it after loading the model, and Triton, which polls, load the model again.
        compileall.compile_dir(target, quiet=2)
        with suppress(RepositoryError):  # Triton will say what is wrong with it
            config = read_config(source)
            config.name = target_name
            if config.HasField("ensemble_scheduling"):
                for step in config.ensemble_scheduling.step:
                    step.model_name = names.get(step.model_name, step.model_name)
                # Triton reads the configuration first, then the version: of two exports they would not fit.
                versions = [int(path.name) for path in target.iterdir() if path.name.isdecimal()]
                config.version_policy.specific.versions[:] = sorted(versions)[-1:]
            (target / CONFIG).write_text(to_text(config), "utf-8")


def link(source: Path, target: Path) -> None:
    """Link a file, or all files of a folder.

    Where that is not possible they are copied: a symbolic link would lead to the files of the model's replacement.
    """
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy)
    else:
        _link_or_copy(source, target)


def _link_or_copy(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or another user's file
        shutil.copy2(source, target)


def find_place(build_dir: Path, repository: Path, port: int) -> Path:
    """Return where to create the folder: where hard links to the repository are possible, if there is such a place.

    Args:
        build_dir: The usual place.
        repository: Model repository.
        port: Of Triton, which tells the folders of several servers apart.
    """
    device = repository.stat().st_dev
    beside = repository.parent
    is_better = build_dir.stat().st_dev != device == beside.stat().st_dev and os.access(beside, os.W_OK)
    return beside / f".{repository.name}.served-{port}" if is_better else build_dir / f"served_models_{port}"
