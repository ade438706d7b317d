"""The only way out: every connection goes to an address that has just been checked."""

import asyncio
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, NoReturn, Protocol

import anyio
import httpcore

from gateway.fetching.addresses import IPAddress, is_public
from gateway.fetching.urls import UnfetchableError, read_ip_address

MAX_ADDRESSES_TRIED = 3

LOOKUP_THREADS = 16
"""The system's resolver blocks; these threads are its own, so that slow names hold up nobody else."""


class Resolver(Protocol):
    """Finds the addresses of a name."""

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """All addresses, best first.

        Raises:
            OSError: the name has none.
        """
        ...


class SystemResolver:
    """Asks as every program on this machine does."""

    def __init__(self) -> None:
        """Starts no thread before the first name."""
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """All addresses, in the order of RFC 6724.

        Raises:
            OSError: the name has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, look_up, name)
        return list(dict.fromkeys(found))


def look_up(name: str) -> list[IPAddress]:
    """The addresses of a name, by a blocking call.

    Raises:
        OSError: the name has none.
    """
    entries = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in entries]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to names of the public internet.

    Names are looked up once, here, and the connection goes to an address of that very answer: what a name server says
    a moment later (DNS rebinding) does not matter.
    """

    def __init__(self, resolver: Resolver, network: httpcore.AsyncNetworkBackend, connect_timeout_s: float) -> None:
        """Opens nothing yet.

        Args:
            resolver: for names.
            network: opens connections to IP addresses.
            connect_timeout_s: seconds for looking up and connecting together.
        """
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
        """A connection to a checked address of the host.

        Args:
            host: a name or an IP address.
            port: of TCP.
            timeout: not looked at: the time is bounded by `connect_timeout_s`.
            local_address: not looked at.
            socket_options: not looked at.

        Raises:
            UnfetchableError: one of the host's addresses is not public.
            OSError: the name has no address.
            TimeoutError: nobody answered in time.
            httpcore.NetworkError: nobody answered.
        """
        expires_s = time.monotonic() + self._connect_timeout_s
        with anyio.fail_after(self._connect_timeout_s):
            literal = read_ip_address(host)
            addresses = [literal] if literal else await self._resolver.resolve(host)
            if not addresses or not all(map(is_public, addresses)):
                raise UnfetchableError("not a public address")
            return await self._connect_first(addresses[:MAX_ADDRESSES_TRIED], port, expires_s)

    async def _connect_first(
        self, addresses: Sequence[IPAddress], port: int, expires_s: float
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that answers; each has an equal share of the time left."""
        for place, address in enumerate(addresses, start=1):
            share_s = (expires_s - time.monotonic()) / (len(addresses) - place + 1)
            try:
                return await self._network.connect_tcp(str(address), port, share_s)
            except (httpcore.NetworkError, httpcore.TimeoutException):
                if place == len(addresses):
                    raise
        raise UnfetchableError("no address")

    async def connect_unix_socket(self, path: str, *args: Any, **options: Any) -> NoReturn:
        """Refuses.

        Raises:
            UnfetchableError: always.
        """
        raise UnfetchableError("not a public address")

    async def sleep(self, seconds: float) -> None:
        """Waits between attempts, of which there is only one."""
        await anyio.sleep(seconds)
