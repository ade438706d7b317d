"""Version of the package and of its HTTP API."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

API_VERSION = "1.0.0"
"""Version of the HTTP API under `/v1`; its major part is the 1 of the path."""


@cache
def package_version() -> str:
    """Return the installed package's version, or `0` when running from a source tree that is not installed."""
    try:
        return version("tessera")
    except PackageNotFoundError:
        return "0"
