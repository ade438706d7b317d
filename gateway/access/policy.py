"""Who may ask, and how much: the place where keys, rates and quotas are decided."""

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request


class AccessSettingsError(ValueError):
    """Keys or store of counts cannot be used as they are set; the message never holds a key or its sum."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: of the key, never the key itself.
    """

    name: str


class AccessPolicy(Protocol):
    """Decides before the work and counts after it."""

    async def admit(self, request: Request) -> Caller:
        """Recognises the caller and takes one request from what it may send.

        Args:
            request: its headers carry the key.

        Raises:
            UnauthorizedError: no valid key.
            RateLimitedError: too many requests or tokens of this key.
            QuotaSpentError: the key's quota is used up.
        """
        ...

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Counts the tokens of an answered request."""
        ...


ANYBODY = Caller("anybody")


class OpenAccess:
    """Lets everybody ask for everything."""

    async def admit(self, request: Request) -> Caller:
        """Admits the request."""
        return ANYBODY

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Counts nothing."""
