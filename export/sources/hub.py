"""Snapshots from the model hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from export.checksums import check_files
from export.errors import HubUnreachableError, SourceError
from export.progress import Progress

CONNECT_TIMEOUT_S = 3.0
# Only data: no pickles, and no code.
FILES = ("*.json", "*.safetensors", "README.md", "LICENSE*", "vocab.txt")
# Formats that lie beside the weights of some checkpoints.
OTHER_FORMATS = ("onnx/*", "openvino/*")


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit."""

    folder: Path
    commit: str


def download(model: str, revision: str | None, progress: Progress) -> Snapshot:
    """Return the files of a hub id, downloading those that are not in the hub's cache yet.

    Large files are compared with the sums that the hub publishes for them.

    Raises:
        HubUnreachableError: the hub does not answer, and its cache has no complete copy.
        SourceError: the hub knows no such model or revision, or does not hand it out.
        ChecksumError: a downloaded file is not the one that the hub describes.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    progress.say(f"ask the model hub for {model}" + (f" at {revision}" if revision else ""))
    commit, sums = _describe(model, revision)
    from huggingface_hub import snapshot_download

    with progress.step(f"download {model} at {commit[:12]}"):
        try:
            folder = snapshot_download(
                model, revision=commit, allow_patterns=list(FILES), ignore_patterns=list(OTHER_FORMATS)
            )
        except OSError as error:
            raise HubUnreachableError(f"the download of {model} broke off ({_one_line(error)})") from error
        check_files(Path(folder), {name: sum_ for name, sum_ in sums.items() if (Path(folder) / name).exists()})
    return Snapshot(Path(folder), commit)


def _describe(model: str, revision: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the commit that `revision` stands for, and the published sums of its large files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(model, revision=revision, timeout=CONNECT_TIMEOUT_S, files_metadata=True)
    except GatedRepoError as error:
        raise SourceError(f"the model hub hands out {model} only to accounts it knows: set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"the model hub has no revision {revision} of {model}") from error
    except RepositoryNotFoundError as error:
        raise SourceError(f"the model hub has no model {model}, and there is no folder of that name") from error
    except OSError as error:
        raise HubUnreachableError(f"the model hub cannot be reached for {model} ({_one_line(error)})") from error
    if info.sha is None:
        raise SourceError(f"the model hub names no commit of {model}")
    sums = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs is not None}
    return info.sha, sums


def _one_line(error: BaseException) -> str:
    """Name the innermost cause: the hub client wraps connection errors several times."""
    return type(error).__name__
