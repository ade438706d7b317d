"""Gets a picture by HTTP: bounded in time, bytes and redirects, and silent about why it did not."""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

import anyio
import httpcore

from gateway.deadline import Deadline
from gateway.errors import DeadlineError, InvalidRequestError, TooLargeError
from gateway.fetching.interface import ByteBudget
from gateway.fetching.queue import FetchQueue
from gateway.fetching.urls import FORBIDDEN, MAX_URL_CHARS, PictureUrl, UnfetchableError, UrlRules

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
"""How an absolute URL begins; `urljoin` would take `http:///a` for a path."""

HEADERS: Sequence[tuple[str, str]] = (
    ("user-agent", "Tessera"),
    ("accept", "image/png, image/jpeg, image/webp, image/gif"),
    ("accept-encoding", "identity"),
    ("connection", "close"),
)

NOT_FETCHED = (
    "the image could not be fetched; its URL must be public, allowed by this server, and answer with the image"
)
"""The one text for every address that is refused and every address that fails."""

FETCH_ERRORS = (
    UnfetchableError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    TimeoutError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one fetch.

    Attributes:
        max_bytes: of the encoded picture.
        timeout_s: for one answer, from looking up the name to the last byte.
        connect_timeout_s: of these, until the connection stands; no failure is told before this much time.
    """

    max_bytes: int
    timeout_s: float
    connect_timeout_s: float


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where an answer says the picture lies.

    Attributes:
        url: absolute; unchecked.
    """

    url: str


class UrlFetcher:
    """An `ImageFetcher` over HTTP/1.1: one connection for each answer, no cookies, no proxy, no cache."""

    def __init__(
        self,
        rules: UrlRules,
        network: httpcore.AsyncNetworkBackend,
        queue: FetchQueue,
        limits: FetchLimits,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            rules: which URLs are looked at.
            network: opens every connection, and refuses addresses.
            queue: bounds how much goes on at once.
            limits: of one fetch.
            ssl_context: with the authorities trusted; the system's and Mozilla's if None.
        """
        self._rules = rules
        self._network = network
        self._queue = queue
        self._limits = limits
        self._ssl_context = ssl_context or httpcore.default_ssl_context()

    async def fetch_image(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """The encoded picture; what it is, the decoder says.

        Raises:
            InvalidRequestError: the address is refused, or no picture came from it; the client cannot tell which.
            TooLargeError: the picture is above its limit, or all of the request together.
            OverloadedError: too many fetches wait already.
            DeadlineError: the request's time is over.
        """
        try:
            with anyio.fail_after(deadline.remaining_s()):
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._ask(url, budget)
                    if isinstance(answer, bytes):
                        return answer
                    url = answer.url
        except TimeoutError as error:
            raise DeadlineError("an image could not be fetched before the request's deadline") from error
        raise InvalidRequestError(NOT_FETCHED)

    async def _ask(self, url: str, budget: ByteBudget) -> bytes | Redirect:
        """One host's answer.

        A failure is told `connect_timeout_s` after the start, whether the URL was refused, its name has no address, or
        nobody answered: neither text nor time gives away what names mean, and who listens, inside the network.
        """
        started_s = time.monotonic()
        try:
            read = self._rules.read(url)
            async with self._queue.slot(read.host):
                started_s = time.monotonic()
                with anyio.fail_after(self._limits.timeout_s):
                    return await self._get(read, budget)
        except FETCH_ERRORS as error:
            logger.info("an image URL was not fetched: %s %s", type(error).__name__, error)
            await asyncio.sleep(started_s + self._limits.connect_timeout_s - time.monotonic())
            raise InvalidRequestError(NOT_FETCHED) from error

    async def _get(self, url: PictureUrl, budget: ByteBudget) -> bytes | Redirect:
        """Connects, asks, and reads."""
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(url.scheme.encode(), url.host.encode(), url.port),
            ssl_context=self._ssl_context,
            network_backend=self._network,
        )
        location = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        try:
            headers = [("host", url.authority), *HEADERS]
            async with connection.stream("GET", location, headers=headers) as response:
                if response.status in REDIRECTS:
                    return read_redirect(url, response)
                return await self._read_picture(response, budget)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.aclose()

    async def _read_picture(self, response: httpcore.Response, budget: ByteBudget) -> bytes:
        """The body, within its limit.

        Raises:
            UnfetchableError: no success, or a body that would have to be unpacked.
            TooLargeError: by Content-Length before a byte is read, else as soon as the limit is passed.
        """
        if response.status != 200 or find_header(response, b"content-encoding") not in (None, "identity"):
            raise UnfetchableError(f"status {response.status}")
        max_bytes = self._limits.max_bytes
        too_large = TooLargeError(f"the image is above the limit of {max_bytes} bytes")
        announced = find_header(response, b"content-length") or "0"
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise too_large
        picture = bytearray()
        async for piece in response.aiter_stream():
            budget.take(len(piece))
            picture += piece
            if len(picture) > max_bytes:
                raise too_large
        return bytes(picture)


def read_redirect(url: PictureUrl, response: httpcore.Response) -> Redirect:
    """Where the answer points to, made absolute.

    Raises:
        UnfetchableError: nowhere, or by a text that readers could take differently.
    """
    location = find_header(response, b"location") or ""
    if not location or len(location) > MAX_URL_CHARS or FORBIDDEN.search(location):
        raise UnfetchableError("malformed redirect")
    try:
        return Redirect(location if ABSOLUTE.match(location) else urljoin(str(url), location))
    except ValueError as error:
        raise UnfetchableError("malformed redirect") from error


def find_header(response: httpcore.Response, name: bytes) -> str | None:
    """A header's value, trimmed, or None where there is none; bytes that are not UTF-8 are replaced."""
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("utf-8", "replace").strip()
    return None
