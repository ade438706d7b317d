"""Rate limits and quotas of API keys, counted by the `limits` library."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from gateway.access.keys import AccessSettingsError, ApiKey
from gateway.errors import QuotaSpentError, RateLimitedError

logger = logging.getLogger(__name__)

REDIS_OPTIONS: dict[str, Any] = {"implementation": "redispy", "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
QUOTA_DAYS = 30
IPV6_PREFIX_BITS = 64  # what one customer of a provider has at least (RFC 6177)


class KeyLimiter:
    """Counts the requests and tokens of keys, in windows that begin with the first one counted.

    The tokens of a request are known once it has succeeded. So a request is admitted while anything is left, its tokens
    are counted in full, and a count may exceed its limit by the requests that were in flight.

    If the store of the counts fails, requests are admitted uncounted: the keys have been checked without it.

    Args:
        store_url: `memory://` for counts of this process, or `redis://host:port/db` for those of all.
        wrong_keys_per_minute: Limit of each address.

    Raises:
        AccessSettingsError: Another URL, or the Redis client is not installed.
    """

    def __init__(self, store_url: str, wrong_keys_per_minute: int) -> None:
        self._limiter = FixedWindowRateLimiter(open_store(store_url))
        self._wrong_keys = RateLimitItemPerMinute(wrong_keys_per_minute)

    async def count_wrong_key(self, address: str) -> None:
        """Count a wrong key from an address.

        Raises:
            RateLimitedError: The address has sent too many within the minute.
        """
        network = group_address(address)
        with failing_open():
            if not await self._limiter.hit(self._wrong_keys, "wrong keys", network):
                message = f"at most {self._wrong_keys.amount} wrong API keys per minute are answered"
                raise await self._rate_error(self._wrong_keys, "wrong keys", network, message)

    async def take_request(self, key: ApiKey) -> None:
        """Count one request, if the key may send it.

        Raises:
            QuotaSpentError: The key's quota is used up.
            RateLimitedError: The key has sent too many tokens or requests within the minute.
        """
        limits = key.entry
        with failing_open():
            if limits.token_quota is not None:
                quota = RateLimitItemPerDay(limits.token_quota, QUOTA_DAYS)
                if not await self._limiter.test(quota, "quota", key.name):
                    raise QuotaSpentError("the token quota of this API key is spent")
            if limits.tokens_per_minute is not None:
                tokens = RateLimitItemPerMinute(limits.tokens_per_minute)
                if not await self._limiter.test(tokens, "tokens", key.name):
                    raise await self._key_error(tokens, "tokens", key)
            if limits.requests_per_minute is not None:
                requests = RateLimitItemPerMinute(limits.requests_per_minute)
                if not await self._limiter.hit(requests, "requests", key.name):
                    raise await self._key_error(requests, "requests", key)

    async def count_tokens(self, key: ApiKey, tokens: int) -> None:
        """Count the tokens of a request."""
        limits = key.entry
        with failing_open():
            if limits.tokens_per_minute is not None:
                await self._limiter.hit(
                    RateLimitItemPerMinute(limits.tokens_per_minute), "tokens", key.name, cost=tokens
                )
            if limits.token_quota is not None:
                quota = RateLimitItemPerDay(limits.token_quota, QUOTA_DAYS)
                await self._limiter.hit(quota, "quota", key.name, cost=tokens)

    async def _key_error(self, limit: RateLimitItem, what: str, key: ApiKey) -> RateLimitedError:
        message = f"this API key may use {limit.amount} {what} per minute"
        return await self._rate_error(limit, what, key.name, message)

    async def _rate_error(self, limit: RateLimitItem, what: str, who: str, message: str) -> RateLimitedError:
        """Return the error that says when the window ends."""
        window = await self._limiter.get_window_stats(limit, what, who)
        remaining_s = min(max(0.0, window.reset_time - time.time()), limit.get_expiry())
        return RateLimitedError(message, retry_after_s=remaining_s, max_retry_after_s=remaining_s)


@lru_cache(4096)
def group_address(address: str) -> str:
    """Return what is counted for an address: itself, or the network of an IPv6 address, any of which one client has."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Network((parsed, IPV6_PREFIX_BITS), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def open_store(url: str) -> Storage:
    """Return the store that a URL names.

    Raises:
        AccessSettingsError: Its kind is not supported, or the Redis client is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in ("memory", "redis", "rediss"):
        raise AccessSettingsError("rate_store: write memory:// or redis://host:port/db")
    options = {} if scheme == "memory" else REDIS_OPTIONS
    try:
        store = storage_from_string(f"async+{url}", wrap_exceptions=True, **options)
    except ConfigurationError as error:
        raise AccessSettingsError("rate_store: the Redis client is missing; install tessera[redis]") from error
    if not isinstance(store, Storage):
        raise AccessSettingsError("rate_store: not an asynchronous store")
    return store


@contextmanager
def failing_open() -> Iterator[None]:
    """Continue if the store fails."""
    try:
        yield
    except StorageError as error:
        logger.warning("requests are not counted: the rate store fails: %s", type(error.storage_error).__name__)
