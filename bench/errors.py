"""Reasons why a benchmark cannot run, each with a message that says what to do."""


class BenchError(Exception):
    """A measurement cannot be made; the message is for whoever started it."""


class ToolMissingError(BenchError):
    """A program that the benchmark needs is not installed, and how to get it."""

    def __init__(self, program: str, remedy: str) -> None:
        super().__init__(f"{program} is not installed: {remedy}")


class InstallError(BenchError):
    """A program that the benchmark installs by itself cannot be installed."""


class ServiceFailedError(BenchError):
    """A server did not start; the message ends with the tail of its log."""

    def __init__(self, name: str, log_tail: str) -> None:
        super().__init__(f"{name} did not start; the end of its log:\n{log_tail}")


class LoadFailedError(BenchError):
    """Requests failed, or the load generator did."""


class WindowTooShortError(LoadFailedError):
    """Too few requests completed within one of perf_analyzer's windows."""
