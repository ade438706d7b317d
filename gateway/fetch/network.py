"""Outgoing connections: only to addresses that have just been checked, and only so many at a time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, NoReturn, Protocol
from weakref import WeakValueDictionary

import anyio
import httpcore

from gateway.errors import OverloadedError
from gateway.fetch.urls import IPAddress, UnfetchableError, is_public, parse_ip_address

MAX_ADDRESSES_TRIED = 3

LOOKUP_THREADS = 16
"""The system's resolver blocks. It has threads of its own, so that slow names delay only other lookups."""


class Resolver(Protocol):
    """Looks up the addresses of a name."""

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """Return all addresses, best first.

        Raises:
            OSError: The name has none.
        """
        ...


class SystemResolver:
    """The resolver that every program on this machine uses."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """Return all addresses, in the order of RFC 6724.

        Raises:
            OSError: The name has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, look_up, name)
        return list(dict.fromkeys(found))


def look_up(name: str) -> list[IPAddress]:
    """Return the addresses of a name; blocks.

    Raises:
        OSError: The name has none.
    """
    entries = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in entries]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public hosts only.

    A name is looked up once, here, and the connection goes to an address of that very lookup: what a name server says a
    moment later (DNS rebinding) does not matter.

    Args:
        resolver: Looks up names.
        network: Opens connections to IP addresses.
        connect_timeout_s: Limit for looking up and connecting together.
    """

    def __init__(self, resolver: Resolver, network: httpcore.AsyncNetworkBackend, connect_timeout_s: float) -> None:
        self._resolver = resolver
        self._network = network
        self._connect_timeout_s = connect_timeout_s

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a checked address of the host.

        Args:
            host: A name or an IP address.
            port: TCP port.
            timeout: Ignored in favour of `connect_timeout_s`.
            local_address: Ignored.
            socket_options: Ignored.

        Raises:
            UnfetchableError: One of the host's addresses is not public.
            OSError: The name has no address.
            TimeoutError: No connection in time.
            httpcore.NetworkError: No address accepted the connection.
        """
        expires_s = time.monotonic() + self._connect_timeout_s
        with anyio.fail_after(self._connect_timeout_s):
            literal = parse_ip_address(host)
            addresses = [literal] if literal else await self._resolver.resolve(host)
            if not addresses or not all(map(is_public, addresses)):
                raise UnfetchableError("not a public address")
            return await self._connect_first(addresses[:MAX_ADDRESSES_TRIED], port, expires_s)

    async def _connect_first(
        self, addresses: Sequence[IPAddress], port: int, expires_s: float
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that accepts; each gets an equal share of the time left."""
        for untried, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share_s = (expires_s - time.monotonic()) / untried
            try:
                return await self._network.connect_tcp(str(address), port, share_s)
            except (httpcore.NetworkError, httpcore.TimeoutException):
                if untried == 1:
                    raise
        raise UnfetchableError("no address")

    async def connect_unix_socket(self, path: str, *args: Any, **options: Any) -> NoReturn:
        """Refuse.

        Raises:
            UnfetchableError: Always.
        """
        raise UnfetchableError("not a public address")

    async def sleep(self, seconds: float) -> None:
        """Sleep between attempts, of which there is only one."""
        await anyio.sleep(seconds)


class FetchQueue:
    """Slots for fetches, granted in order of arrival.

    Args:
        concurrency: Fetches at a time.
        host_concurrency: Fetches from one host at a time.
        capacity: Fetches running and waiting.
    """

    def __init__(self, *, concurrency: int, host_concurrency: int, capacity: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._host_concurrency = host_concurrency
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._capacity = capacity
        self._count = 0

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it.

        Args:
            host: The host to fetch from.

        Raises:
            OverloadedError: Too many fetches are waiting.
        """
        if self._count >= self._capacity:
            raise OverloadedError("too many image URLs are being fetched", retry_after_s=1.0)
        self._count += 1
        host_slots = self._host_slots.setdefault(host, asyncio.Semaphore(self._host_concurrency))
        try:
            # The host's slot first: a fetch that waits for a slow host takes nothing from the others.
            async with host_slots, self._slots:
                yield
        finally:
            self._count -= 1
