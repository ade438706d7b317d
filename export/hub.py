"""The model hub: what it says of a model, and the download of its files, repeated while the hub does not respond."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

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


def download(model: str, revision: str | None, progress: Progress, attempts: int | None = None) -> tuple[Path, str]:
    """Return the folder and the commit of a hub id, downloading the files that are not in the hub's cache.

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
    commit, sums = _retry(lambda: describe(model, revision), delays_s, progress)
    with progress.step(f"download {model} at {commit[:12]}"):
        folder = _retry(lambda: _download_snapshot(model, commit), delays_s, progress)
        check_files(folder, {name: sha256 for name, sha256 in sums.items() if (folder / name).exists()})
    return folder, commit


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


def describe(model: str, revision: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the commit of a revision, and the published sums of its large files.

    Raises:
        HubUnreachableError: The hub does not respond.
        SourceError: The hub has no such model or revision, or restricts access to it.
    """
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
