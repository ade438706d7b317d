"""Outgoing connections: only to addresses that have just been checked, and only so many at a time."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, NoReturn, Protocol
from weakref import WeakValueDictionary

import aiodns
import anyio
import httpcore

from gateway.errors import OverloadedError
from gateway.fetch.urls import IPAddress, UnfetchableError, is_public, parse_ip_address

MAX_ADDRESSES_TRIED = 3

LOOKUP_TIMEOUT_S = 1.0
LOOKUP_TRIES = 2

MAX_OVERHEAD_BYTES = 64 * 1024
"""Of a response on the wire, beyond twice the file: room for its headers."""

HEAD_READ_BYTES = 4096
MAX_READ_BYTES = 64 * 1024


class Resolver(Protocol):
    """Looks up the addresses of a name."""

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """Return all addresses, best first.

        Raises:
            OSError: The name has none.
        """
        ...


class DnsResolver:
    """Looks up names without threads, which slow names would occupy; knows /etc/hosts and /etc/resolv.conf."""

    def __init__(self) -> None:
        self._resolver: aiodns.DNSResolver | None = None

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """Return all addresses, in the order of RFC 6724.

        Raises:
            OSError: The name has none.
        """
        if self._resolver is None:  # it belongs to the running event loop
            self._resolver = aiodns.DNSResolver(timeout=LOOKUP_TIMEOUT_S, tries=LOOKUP_TRIES)
        try:
            found = await self._resolver.getaddrinfo(name, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError("the name has no address") from error
        return list(dict.fromkeys(ip_address(node.addr[0].decode()) for node in found.nodes))


class WireMeter:
    """Refuses a response that is much longer on the wire than the file in it, such as one in chunks of one byte.

    Attributes:
        head_is_read: Whether the response's status and headers have arrived.
        file_bytes: Of the file, as far as it has arrived.
    """

    def __init__(self) -> None:
        self.head_is_read = False
        self.file_bytes = 0
        self._wire_bytes = 0

    def count(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            UnfetchableError: Those before, which have been parsed by now, were too many for what they have brought.
        """
        if self._wire_bytes > 2 * self.file_bytes + MAX_OVERHEAD_BYTES:
            raise UnfetchableError("too much overhead")
        self._wire_bytes += count

    @property
    def read_bytes(self) -> int:
        """How much to read at once: little of a head, which httpcore parses without a pause for other work."""
        return MAX_READ_BYTES if self.head_is_read else HEAD_READ_BYTES


class MeteredStream(httpcore.AsyncNetworkStream):
    """A connection that a meter watches."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, meter: WireMeter) -> None:
        self._stream = stream
        self._meter = meter

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has arrived, after other work has had its turn."""
        await asyncio.sleep(0)
        data = await self._stream.read(min(max_bytes, self._meter.read_bytes), timeout)
        self._meter.count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Return the same connection with TLS."""
        return MeteredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._meter)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows of itself."""
        return self._stream.get_extra_info(info)


class MeteredNetwork(httpcore.AsyncNetworkBackend):
    """Connects as another network does, and has a meter watch.

    Args:
        network: Opens the connection.
        meter: Of one response.
    """

    def __init__(self, network: httpcore.AsyncNetworkBackend, meter: WireMeter) -> None:
        self._network = network
        self._meter = meter

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Connect; raises as the network does."""
        return MeteredStream(await self._network.connect_tcp(host, port, *args, **options), self._meter)

    async def sleep(self, seconds: float) -> None:
        """Sleep between attempts, of which there is only one."""
        await self._network.sleep(seconds)


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
