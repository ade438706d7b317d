"""What a key has spent, and whether it may spend more."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from limits.aio.storage import Storage
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from gateway.access.keys import ApiKey
from gateway.access.policy import AccessSettingsError
from gateway.errors import QuotaSpentError, RateLimitedError

logger = logging.getLogger(__name__)

REDIS_OPTIONS: dict[str, Any] = {"implementation": "redispy", "socket_timeout": 1.0, "socket_connect_timeout": 1.0}


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time over which something is counted; it begins with the first thing counted.

    Attributes:
        name: of what is counted.
        seconds: that it lasts.
    """

    name: str
    seconds: int


REQUESTS = Window("requests", 60)
TOKENS = Window("tokens", 60)
QUOTA = Window("quota", 30 * 24 * 3600)


class Allowances:
    """Counts the requests and tokens of keys.

    What a request costs in tokens is known once it is answered. So a request is admitted while anything is left, its
    cost is counted whole, and the count may pass its bound by the requests that were in flight.

    Where the store of the counts is away, requests are admitted and not counted: it keeps order among clients whose
    keys have been checked without it.
    """

    def __init__(self, store_url: str) -> None:
        """Connects to nothing yet.

        Args:
            store_url: `memory://` for counts of this process, or `redis://host:port/db` for those of all.

        Raises:
            AccessSettingsError: another URL, or the Redis client is not installed.
        """
        self._store = open_store(store_url)

    async def take_request(self, key: ApiKey) -> None:
        """Counts one request, if the key may send it.

        Raises:
            QuotaSpentError: nothing is left of the key's quota.
            RateLimitedError: too many tokens or requests within the minute.
        """
        with counted_if_possible():
            if key.token_quota is not None and await self._count(QUOTA, key) >= key.token_quota:
                raise QuotaSpentError("the token quota of this API key is spent")
            if key.tokens_per_minute is not None and await self._count(TOKENS, key) >= key.tokens_per_minute:
                raise await self._too_often(TOKENS, key, key.tokens_per_minute)
            if key.requests_per_minute is not None and await self._add(REQUESTS, key, 1) > key.requests_per_minute:
                raise await self._too_often(REQUESTS, key, key.requests_per_minute)

    async def count_tokens(self, key: ApiKey, tokens: int) -> None:
        """Counts the tokens of an answered request."""
        with counted_if_possible():
            if key.tokens_per_minute is not None:
                await self._add(TOKENS, key, tokens)
            if key.token_quota is not None:
                await self._add(QUOTA, key, tokens)

    async def _count(self, window: Window, key: ApiKey) -> int:
        return await self._store.get(counter_name(window, key))

    async def _add(self, window: Window, key: ApiKey, amount: int) -> int:
        """The count with the amount in it."""
        return await self._store.incr(counter_name(window, key), window.seconds, amount)

    async def _too_often(self, window: Window, key: ApiKey, allowed: int) -> RateLimitedError:
        """The error that says when the window ends."""
        ends_s = await self._store.get_expiry(counter_name(window, key))
        message = f"this API key may use {allowed} {window.name} per minute"
        return RateLimitedError(message, retry_after_s=max(0.0, ends_s - time.time()))


def counter_name(window: Window, key: ApiKey) -> str:
    """The name of a count in the store."""
    return f"{window.name}/{key.name}"


def open_store(url: str) -> Storage:
    """The store of a URL.

    Raises:
        AccessSettingsError: there is none of this kind, or the Redis client is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in ("memory", "redis", "rediss"):
        raise AccessSettingsError("rate_store: write memory:// or redis://host:port/db")
    try:
        store = storage_from_string(
            f"async+{url}", wrap_exceptions=True, **({} if scheme == "memory" else REDIS_OPTIONS)
        )
    except ConfigurationError as error:
        raise AccessSettingsError("rate_store: the Redis client is missing; install tessera[redis]") from error
    if not isinstance(store, Storage):
        raise AccessSettingsError("rate_store: not an asynchronous store")
    return store


@contextmanager
def counted_if_possible() -> Iterator[None]:
    """Goes on where the store fails."""
    try:
        yield
    except StorageError as error:
        logger.warning("requests are not counted, the store of rates fails: %s", type(error.storage_error).__name__)
