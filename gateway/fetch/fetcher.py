"""Fetches an image or a PDF over HTTP: bounded in time, bytes and redirects, and silent about why it failed."""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

import anyio
import httpcore

from gateway.errors import DeadlineError, InvalidRequestError, TooLargeError
from gateway.fetch.network import DnsResolver, FetchQueue, GuardedNetwork, MeteredNetwork, WireMeter
from gateway.fetch.urls import FORBIDDEN, MAX_URL_CHARS, ParsedUrl, UnfetchableError, UrlRules
from gateway.settings import Settings
from gateway.types import Deadline

logger = logging.getLogger(__name__)

SCHEMES = {"https": frozenset({"https"}), "on": frozenset({"http", "https"})}

MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
"""How an absolute URL begins; `urljoin` would take `http:///a` for a path."""

HEADERS: Sequence[tuple[str, str]] = (
    ("user-agent", "Tessera"),
    ("accept", "image/png, image/jpeg, image/webp, image/gif, application/pdf"),
    ("accept-encoding", "identity"),
    ("connection", "close"),
)

PIECES_PER_TURN = 64

NOT_FETCHED = (
    "the file could not be fetched; its URL must be public, allowed by this server, and return the file itself"
)
"""The one message for every URL that is refused and every fetch that fails."""

FETCH_ERRORS = (
    UnfetchableError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    TimeoutError,
    OSError,
)


class ByteBudget:
    """Limits the bytes of all files fetched for one request."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0

    def spend(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            TooLargeError: The limit is exceeded.
        """
        self._used += count
        if self._used > self._max_bytes:
            raise TooLargeError(f"the files fetched for one request are above the limit of {self._max_bytes} bytes")


class FileFetcher(Protocol):
    """Fetches files by URL."""

    async def fetch(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """Return the file.

        Args:
            url: As the client wrote it.
            deadline: Of the request.
            budget: Of the request.

        Raises:
            InvalidRequestError: The URL is refused, or did not return a file.
            TooLargeError: The file is above its limit, or all files of the request together are.
        """
        ...


class NoFetcher:
    """Refuses every URL without looking at it."""

    async def fetch(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """Refuse.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError("URLs are not fetched by this server; send the file as a data URL")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one fetch.

    Attributes:
        max_bytes: Size of the file.
        timeout_s: For one response, from looking up the name to the last byte.
        connect_timeout_s: For connecting; a failure is reported no earlier than this.
    """

    max_bytes: int
    timeout_s: float
    connect_timeout_s: float


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a response says the file is.

    Attributes:
        url: Absolute; unchecked.
    """

    url: str


class UrlFetcher:
    """A `FileFetcher` over HTTP/1.1: one connection for each response, no cookies, no proxy, no cache.

    Args:
        rules: Which URLs may be fetched.
        network: Opens every connection, and refuses private addresses.
        queue: Bounds how many fetches run at a time.
        limits: Of one fetch.
        ssl_context: With the trusted authorities; the system's and Mozilla's if None.
    """

    def __init__(
        self,
        rules: UrlRules,
        network: httpcore.AsyncNetworkBackend,
        queue: FetchQueue,
        limits: FetchLimits,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._network = network
        self._queue = queue
        self._limits = limits
        self._ssl_context = ssl_context or httpcore.default_ssl_context()

    async def fetch(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """Return the encoded image; the decoder finds out what it is.

        Raises:
            InvalidRequestError: The URL is refused, or did not return an image; the client cannot tell which.
            TooLargeError: The image is above its limit, or all images of the request together are.
            OverloadedError: Too many fetches are waiting.
            DeadlineError: The request's deadline has passed.
        """
        try:
            with anyio.fail_after(deadline.remaining_s()):
                for _ in range(MAX_REDIRECTS + 1):
                    response = await self._request(url, budget)
                    if isinstance(response, bytes):
                        return response
                    url = response.url
        except TimeoutError as error:
            raise DeadlineError("a file could not be fetched before the request's deadline") from error
        raise InvalidRequestError(NOT_FETCHED)

    async def _request(self, url: str, budget: ByteBudget) -> bytes | Redirect:
        """Request one URL.

        Every failure is reported `connect_timeout_s` after the start, whether the URL was refused, its name has no
        address, or no host responded: neither message nor timing reveals names and hosts of the internal network. A
        request waiting out its failure does not hold a slot.
        """
        started_s = time.monotonic()
        try:
            parsed = self._rules.parse(url)
            async with self._queue.slot(parsed.host):
                started_s = time.monotonic()
                with anyio.fail_after(self._limits.timeout_s):
                    return await self._get(parsed, budget)
        except FETCH_ERRORS as error:
            logger.info("a URL was not fetched: %s %s", type(error).__name__, error)
            await asyncio.sleep(started_s + self._limits.connect_timeout_s - time.monotonic())
            raise InvalidRequestError(NOT_FETCHED) from error

    async def _get(self, url: ParsedUrl, budget: ByteBudget) -> bytes | Redirect:
        """Connect, send the request, and read the response."""
        meter = WireMeter()
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(url.scheme.encode(), url.host.encode(), url.port),
            ssl_context=self._ssl_context,
            network_backend=MeteredNetwork(self._network, meter),
        )
        location = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        try:
            headers = [("host", url.authority), *HEADERS]
            async with connection.stream("GET", location, headers=headers) as response:
                meter.head_is_read = True
                if response.status in REDIRECTS:
                    return read_redirect(url, response)
                return await self._read_file(response, budget, meter)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.aclose()

    async def _read_file(self, response: httpcore.Response, budget: ByteBudget, meter: WireMeter) -> bytes:
        """Read the body, within its limit.

        Raises:
            UnfetchableError: The status is not 200, or the body is compressed.
            TooLargeError: By Content-Length before a byte is read, else as soon as the limit is exceeded.
        """
        if response.status != 200 or find_header(response, b"content-encoding") not in (None, "identity"):
            raise UnfetchableError(f"status {response.status}")
        max_bytes = self._limits.max_bytes
        too_large = TooLargeError(f"the file is above the limit of {max_bytes} bytes")
        announced = find_header(response, b"content-length") or "0"
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise too_large
        file = bytearray()
        pieces = 0
        async for piece in response.aiter_stream():
            budget.spend(len(piece))
            file += piece
            meter.file_bytes = len(file)
            pieces += 1
            if not pieces % PIECES_PER_TURN:
                await asyncio.sleep(0)  # pieces that have arrived together come without a pause
            if len(file) > max_bytes:
                raise too_large
        return bytes(file)


def read_redirect(url: ParsedUrl, response: httpcore.Response) -> Redirect:
    """Return the target of a redirect, made absolute.

    Raises:
        UnfetchableError: There is none, or readers could take it differently.
    """
    location = find_header(response, b"location") or ""
    if not location or len(location) > MAX_URL_CHARS or FORBIDDEN.search(location):
        raise UnfetchableError("malformed redirect")
    try:
        return Redirect(location if ABSOLUTE.match(location) else urljoin(str(url), location))
    except ValueError as error:
        raise UnfetchableError("malformed redirect") from error


def find_header(response: httpcore.Response, name: bytes) -> str | None:
    """Return a header's value, trimmed, or None if there is none; bytes that are not UTF-8 are replaced."""
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("utf-8", "replace").strip()
    return None


def build_fetcher(settings: Settings) -> FileFetcher:
    """Return the fetcher that the settings ask for; it opens nothing before the first URL."""
    if settings.image_urls == "off":
        return NoFetcher()
    connect_timeout_s = settings.image_url_connect_timeout_s
    return UrlFetcher(
        UrlRules(SCHEMES[settings.image_urls], frozenset(settings.image_url_hosts.lower().replace(",", " ").split())),
        GuardedNetwork(DnsResolver(), httpcore.AnyIOBackend(), connect_timeout_s),
        FetchQueue(
            concurrency=settings.image_url_concurrency,
            host_concurrency=settings.image_url_host_concurrency,
            capacity=settings.image_url_queue,
        ),
        FetchLimits(settings.max_image_bytes, settings.image_url_timeout_s, connect_timeout_s),
    )
