"""What can go wrong before the service is up, each with a line that says what to do."""


class LauncherError(Exception):
    """The service cannot start or go on; the message is for the person who started it."""


class PortTakenError(LauncherError):
    """Another process listens where this one should."""

    def __init__(self, host: str, port: int, variable: str) -> None:
        """Name the port and the variable that changes it."""
        super().__init__(f"port {port} on {host} is taken: free it, or choose another with {variable}=PORT")


class ProcessDiedError(LauncherError):
    """A process ended while it was starting."""

    def __init__(self, name: str, log_tail: str) -> None:
        """Show the end of its log."""
        super().__init__(f"{name} ended while starting; the end of its log:\n{log_tail}")


class StartTimeoutError(LauncherError):
    """A process did not become ready in time."""

    def __init__(self, name: str, timeout_s: float, log_tail: str) -> None:
        """Show the end of its log."""
        super().__init__(f"{name} was not ready within {timeout_s:.0f} s; the end of its log:\n{log_tail}")


class EmptyRepositoryError(LauncherError):
    """There is nothing to serve."""

    def __init__(self, repository: object) -> None:
        """Name the folder."""
        super().__init__(f"{repository} holds no model: export one with make export MODEL=… REPOSITORY={repository}")
