"""Where checkpoints come from: a local folder, the model hub, or a package that carries a pinned checkpoint's files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from export.checksums import check_files
from export.errors import HubUnreachableError, SourceError
from export.progress import Progress
from export.sources import hub, package
from export.sources.pinned import PINNED, PinnedCheckpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """A checkpoint's files on this machine, and where they are from."""

    folder: Path
    origin: str  # hub id, package or folder name, as the manifest records it
    revision: str | None  # commit of the hub, where one is known


def default_public_id(model: str) -> str:
    """Return the name that a checkpoint is served by unless another is asked for: its hub id, or its folder's name.

    Raises:
        SourceError: `model` is neither a folder nor the form of a hub id.
    """
    if Path(model).is_dir():
        return Path(model).resolve().name
    if not _HUB_ID.fullmatch(model):
        raise SourceError(f"{model} is neither a folder nor a hub id (organisation/name)")
    return model


def resolve(model: str, revision: str | None, progress: Progress) -> Source:
    """Return the files of `model`: a folder if there is one of that name, else a hub id.

    Raises:
        SourceError: there is no such folder, and it cannot be downloaded either.
        ChecksumError: a pinned checkpoint's file is not the published one.
    """
    name = default_public_id(model)
    if Path(model).is_dir():
        return Source(Path(model).resolve(), origin=name, revision=None)
    pinned = PINNED.get(model)
    if pinned is None or revision not in (None, pinned.revision):
        snapshot = hub.download(model, revision, progress)
        return Source(snapshot.folder, origin=model, revision=snapshot.commit)
    return _download_pinned(model, pinned, progress)


def _download_pinned(model: str, pinned: PinnedCheckpoint, progress: Progress) -> Source:
    """Ask the hub first, then the package; either way the bytes must be the published ones."""
    try:
        folder = hub.download(model, pinned.revision, progress).folder
    except HubUnreachableError as error:
        if pinned.package is None:
            raise
        progress.say(f"{error}; taking the package {pinned.package.requirement} instead")
        folder = package.download(pinned.package, progress)
    with progress.step(f"check the published sha256 sums of {model}"):
        check_files(folder, pinned.sha256)
    return Source(folder, origin=model, revision=pinned.revision)
