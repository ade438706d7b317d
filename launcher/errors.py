"""Errors that keep the service from starting. Each message says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path


class LauncherError(Exception):
    """The service cannot start. The message is shown to the user."""


class PortTakenError(LauncherError):
    """A port is in use by another process."""

    def __init__(self, host: str, port: int, variable: str) -> None:
        super().__init__(f"port {port} on {host} is taken: free it, or choose another with {variable}=PORT")


class ProcessDiedError(LauncherError):
    """A process exited while starting."""

    def __init__(self, name: str, log_tail: str) -> None:
        super().__init__(f"{name} exited while starting; its log ends with:\n{log_tail}")


class StartTimeoutError(LauncherError):
    """A process did not become ready in time."""

    def __init__(self, name: str, timeout_s: float, log_tail: str) -> None:
        super().__init__(f"{name} was not ready within {timeout_s:.0f} s; its log ends with:\n{log_tail}")


class CrashLoopError(LauncherError):
    """A process failed each time it was started, before it could serve."""

    def __init__(self, name: str, fault: str, starts: int, log_tail: str) -> None:
        super().__init__(f"{name} {fault}, after {starts} starts in a row; giving up. Its log ends with:\n{log_tail}")


class NoModelLoadedError(LauncherError):
    """Triton could load none of the models."""

    def __init__(self, log_tail: str) -> None:
        super().__init__(f"Triton could load no model; its log ends with:\n{log_tail}")


class SharedMemoryFullError(LauncherError):
    """There is too little shared memory for Triton's Python stubs."""

    def __init__(self, folder: Path, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"{folder} has {free_bytes >> 20} MiB free, and these models need {needed_bytes >> 20} MiB:"
            " free some, or give the container more with --shm-size"
        )


class TooFewDescriptorsError(LauncherError):
    """The process may open too few files and connections."""

    def __init__(self, limit: int, needed: int) -> None:
        super().__init__(
            f"only {limit} open files are allowed, and at least {needed} needed: run ulimit -n {8 * needed}"
        )


class UnwritableFolderError(LauncherError):
    """The folder for backends and logs cannot be written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        # shutil collects what went wrong with each file as (source, target, reason)
        text = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error)
        reason = text.partition(": ")[0].rpartition("] ")[2]  # without its number and paths
        super().__init__(f"{folder} cannot be written: {reason}. Free space there, or choose another with BUILD_DIR")


class EmptyRepositoryError(LauncherError):
    """The repository contains no model."""

    def __init__(self, repository: Path) -> None:
        super().__init__(f"{repository} contains no model: export one with make export MODEL=… REPOSITORY={repository}")
