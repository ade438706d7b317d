"""Which version of what this is."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

API_VERSION = "1.0.0"
"""Of the HTTP API under `/v1`; its major part is the 1 of the path."""


@cache
def release_version() -> str:
    """The installed package's version; `0` where it runs from a source tree that is not installed."""
    try:
        return version("tessera")
    except PackageNotFoundError:
        return "0"
