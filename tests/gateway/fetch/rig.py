"""A little internet on loopback: a name server's answers, and one host behind every address, which counts visits."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import anyio
import httpcore
import trustme

from gateway.fetch.urls import IPAddress

PUBLIC = "93.184.215.14"
PUBLIC_IPV6 = "2606:2800:21f:cb07::1"
IMAGE = b"\x89PNG image"


def ok(body: bytes, *headers: str) -> bytes:
    """An answer with a body."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """An answer that points elsewhere."""
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class NameServer:
    """A `Resolver` with scripted answers; the last one is repeated.

    Attributes:
        answers: of each name, one list of addresses after another.
        asked: names, in order.
        delay_s: before each answer.
    """

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = field(default_factory=list)
    delay_s: float = 0.0

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        self.asked.append(name)
        await asyncio.sleep(self.delay_s)
        answers = self.answers.get(name)
        if not answers:
            raise OSError("no such name")
        return [ip_address(address) for address in answers[min(self.asked.count(name), len(answers)) - 1]]


@dataclass
class Site:
    """A host that answers by path.

    Attributes:
        pages: whole answers, as they go over the wire; None leaves the client waiting.
        heads: of the requests that came.
        connections: that were opened.
        open_now: connections that are open.
        most_open: at once.
        pause_s: before each answer.
    """

    pages: dict[str, bytes | None] = field(default_factory=lambda: {"/a.png": ok(IMAGE)})
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    pause_s: float = 0.0
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            await asyncio.sleep(self.pause_s)
            page = self.pages.get(head.split()[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if page is None:
                await reader.read()
            else:
                writer.write(page)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Site"]:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


@dataclass
class Wire(httpcore.AsyncNetworkBackend):
    """Every address of the world leads to the site that listens for its port; whatever is sent goes through here.

    Attributes:
        sites: by the port that is asked for.
        dead: addresses that do not respond, with seconds until that is known.
        reached: address and port of every connection that was tried.
    """

    sites: Mapping[int, Site]
    dead: Mapping[str, float] = field(default_factory=dict)
    reached: list[tuple[str, int]] = field(default_factory=list)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.reached.append((host, port))
        if host in self.dead:
            with anyio.move_on_after(timeout):
                await asyncio.sleep(self.dead[host])
            raise httpcore.ConnectError("connection refused")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self.sites[port].port, timeout)


class Authority:
    """A certificate authority for names of the rig."""

    def __init__(self, *names: str) -> None:
        authority = trustme.CA()
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self.server_context)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
