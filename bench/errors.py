"""Why a benchmark cannot run, each with a line that says what to do."""


class BenchError(Exception):
    """A measurement cannot be made; the message is for the person who asked for it."""


class ToolMissingError(BenchError):
    """A program that the benchmark needs is not installed."""

    def __init__(self, program: str, remedy: str) -> None:
        """Name the program and how to get it."""
        super().__init__(f"{program} is not installed: {remedy}")


class ServiceFailedError(BenchError):
    """A server did not start."""

    def __init__(self, name: str, log_tail: str) -> None:
        """Show the end of its log."""
        super().__init__(f"{name} did not start; the end of its log:\n{log_tail}")


class LoadFailedError(BenchError):
    """Requests fail that should not."""
