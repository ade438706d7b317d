"""Who may send requests: everyone, or the holders of API keys within their limits."""

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from gateway.access.keys import AccessSettingsError, ApiKey, KeyRing, read_keys
from gateway.access.limits import KeyLimiter
from gateway.errors import UnauthorizedError
from gateway.settings import Settings

__all__ = ["ANONYMOUS", "AccessPolicy", "AccessSettingsError", "Caller", "KeyedAccess", "OpenAccess", "build_access"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: Name of the API key, never the key itself.
        weight: Of its share of the engine, where others wait.
    """

    name: str
    weight: float = 1.0


ANONYMOUS = Caller("anonymous")


class AccessPolicy(Protocol):
    """Admits requests before the work, and counts tokens after it."""

    async def admit(self, request: Request) -> Caller:
        """Identify the caller and count one request.

        Args:
            request: Its headers carry the key, and its scope the client's address.

        Raises:
            UnauthorizedError: No valid key.
            RateLimitedError: Too many requests or tokens of this key, or too many wrong keys from this address.
            QuotaSpentError: The key's quota is used up.
        """
        ...

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of a request: those used, or those that one in vain made the engine work on."""
        ...


class OpenAccess:
    """Admits every request."""

    async def admit(self, request: Request) -> Caller:
        """Admit the request."""
        return ANONYMOUS

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Count nothing."""


class KeyedAccess:
    """Admits the holders of keys, within each key's limits.

    Args:
        keys: At least one.
        limiter: Counts what they use.
    """

    def __init__(self, keys: list[ApiKey], limiter: KeyLimiter) -> None:
        self._ring = KeyRing(keys)
        self._keys = {key.name: key for key in keys}
        self._limiter = limiter

    async def admit(self, request: Request) -> Caller:
        """Identify the key and count one request.

        A valid key is admitted whatever other keys its address sends: many clients may share one.

        Raises:
            UnauthorizedError: No valid key.
            RateLimitedError: Too many requests or tokens of this key, or too many wrong keys from this address.
            QuotaSpentError: The key's quota is used up.
        """
        secret = read_bearer(request)
        key = self._ring.find(secret)
        if key is None:
            if secret:
                await self._limiter.count_wrong_key(request.client.host if request.client else "")
            raise UnauthorizedError("a valid API key is required; send it as 'Authorization: Bearer KEY'")
        await self._limiter.take_request(key)
        return Caller(key.name, key.entry.weight)

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of a request."""
        await self._limiter.count_tokens(self._keys[caller.name], tokens)


def read_bearer(request: Request) -> bytes:
    """Return what follows `Bearer` in the Authorization header (RFC 6750), or nothing."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def build_access(settings: Settings) -> AccessPolicy:
    """Return the policy that the settings ask for.

    Raises:
        AccessSettingsError: The settings of keys or of the rate store are unusable.
    """
    keys = read_keys(settings.api_keys, settings.api_keys_file)
    return KeyedAccess(keys, KeyLimiter(settings.rate_store, settings.wrong_keys_per_minute)) if keys else OpenAccess()
