"""What a request's headers tell before its body arrives: that they are ambiguous, and who sends it."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from gateway.errors import GatewayError, HeadersTooLargeError, InvalidRequestError

MAX_HEADERS = 100

IDENTITY_HEADERS = frozenset({b"authorization", b"x-forwarded-for", b"forwarded"})
"""Which may tell clients apart that share an address."""

MAX_SUSPECT_BYTES = 16 * 1024
"""Longest body of the requests that are refused before it is parsed."""

SPECIAL_HEADERS = frozenset({b"origin", b"transfer-encoding", b"expect", b"content-encoding"})
"""Requests with these are left to the application."""

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Key: TypeAlias = tuple[object, ...]


def find_problem(headers: Headers, http_version: str) -> GatewayError | None:
    """Return what is wrong with headers: too many, or such that proxies and servers could read them differently."""
    if len(headers) > MAX_HEADERS:
        return HeadersTooLargeError(f"the request has more than {MAX_HEADERS} headers")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return InvalidRequestError("the only supported Transfer-Encoding is chunked")
    if hosts != 1 and (hosts or http_version == "1.1"):
        return InvalidRequestError("the request must have one Host header")
    return None


def identify(address: str, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Key | None:
    """Return what tells clients and routes apart, or None for a request that is not refused at the edge."""
    found: list[tuple[bytes, bytes]] = []
    for line in headers:
        name = line[0]
        if name in IDENTITY_HEADERS:
            found.append(line)
        elif name in SPECIAL_HEADERS or (name == b"content-length" and int(line[1]) > MAX_SUSPECT_BYTES):
            return None
    return (address, url, *found)
