"""Errors that keep the service from starting. Each message says what to do."""

from __future__ import annotations

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


class EmptyRepositoryError(LauncherError):
    """The repository contains no model."""

    def __init__(self, repository: Path) -> None:
        super().__init__(f"{repository} contains no model: export one with make export MODEL=… REPOSITORY={repository}")
