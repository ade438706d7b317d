"""Reading a request's JSON body within its limits."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from gateway.api.request import Body, explain
from gateway.errors import InvalidRequestError, TooLargeError, UnsupportedMediaTypeError

LARGE_BODY_BYTES = 256 * 1024
"""A smaller body is parsed within ten milliseconds, whatever it consists of."""

MAX_STRINGS = 200_000
MAX_CONTAINERS = 100_000
MAX_COMMAS = 4_000_000
"""What a body may consist of, outside its strings: far more than the largest request has, and parsed in 0.2 seconds."""

SLICE_BYTES = 4 * 1024 * 1024
"""How much is counted before other requests have their turn."""

B = TypeVar("B", bound=Body)


async def read_embeddings_body(
    request: Request, kind: type[B], *, max_bytes: int, extended_kind: type[B] | None = None
) -> B:
    """Read and parse a body; of a key written twice, the last value counts.

    Args:
        request: Its body has not been read.
        kind: The body's type.
        max_bytes: Limit of the body's size.
        extended_kind: Type of a body that has fields beyond those of `kind`; None if there are none.

    Raises:
        UnsupportedMediaTypeError: Not `application/json`, or compressed.
        TooLargeError: Above the limit; what is not read stays unread.
        InvalidRequestError: Not JSON (RFC 8259, UTF-8), or not of this type.
    """
    headers = dict(request.scope["headers"])  # Starlette's own mapping searches and decodes all of them each time
    check_media_type(headers)
    check_encodings(request.scope["headers"])
    body = await read_body(request, headers, max_bytes=max_bytes)
    if len(body) > LARGE_BODY_BYTES:
        await check_structure(body)
    return parse_body(body, kind, extended_kind)


async def check_structure(body: bytes) -> None:
    """Check that parsing a body neither takes long nor makes many objects.

    Raises:
        InvalidRequestError: It would.
    """
    counts = [0, 0, 0]
    was_excessive = False
    for start in range(0, len(body), SLICE_BYTES):
        end = start + SLICE_BYTES
        counts = [sum(pair) for pair in zip(counts, count_structure(body[start:end]), strict=True)]
        # The strings are looked at where the bounds are first exceeded, as most attacks end there, and at the end.
        if is_excessive(*counts) and (not was_excessive or end >= len(body)):
            was_excessive = True
            if is_excessive(*count_structure(remove_string_contents(body[:end]))):
                raise InvalidRequestError("the request body has too many values")
        await asyncio.sleep(0)


def count_structure(body: bytes) -> tuple[int, int, int]:
    """Return the numbers of quotes, of brackets that open, and of commas."""
    return body.count(b'"'), body.count(b"[") + body.count(b"{"), body.count(b",")


def is_excessive(quotes: int, openings: int, commas: int) -> bool:
    """Return whether a body with that many quotes, openings and commas outside its strings is refused."""
    return quotes > 2 * MAX_STRINGS or openings > MAX_CONTAINERS or commas > MAX_COMMAS


def remove_string_contents(body: bytes) -> bytes:
    """Return a body whose strings are empty, or as it is but for escapes if there are too many of them."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 2 * MAX_STRINGS:
        return unescaped
    return b'""'.join(unescaped.split(b'"')[::2])


def parse_body(body: bytes, kind: type[B], extended_kind: type[B] | None) -> B:
    """Return a body's content; arguments and errors as those of `read_embeddings_body`."""
    decoder: msgspec.json.Decoder[B] = decoder_of(kind)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        problem = str(error)
        if extended_kind and problem.startswith("Object contains unknown field") and " - at `" not in problem:
            return parse_body(body, extended_kind, None)
        raise explain(problem, kind) from None  # the parser's own text can hold pieces of the body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("the request body is not valid JSON") from None


@cache
def decoder_of(kind: type[B]) -> msgspec.json.Decoder[B]:
    """Return the decoder of a body's type."""
    return msgspec.json.Decoder(kind)


def check_media_type(headers: Mapping[bytes, bytes]) -> None:
    """Accept plain UTF-8 JSON.

    Raises:
        UnsupportedMediaTypeError: The body is anything else.
    """
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    if media_type.strip() != b"application/json":
        raise UnsupportedMediaTypeError("the request body must be application/json")
    if b"charset" in parameters and b"utf-8" not in parameters:
        raise UnsupportedMediaTypeError("the request body must be in UTF-8")


def check_encodings(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Accept a body that no header says to be encoded.

    Raises:
        UnsupportedMediaTypeError: One does.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMediaTypeError("compressed request bodies are not supported")


async def read_body(request: Request, headers: Mapping[bytes, bytes], *, max_bytes: int) -> bytes:
    """Return the body's bytes.

    Raises:
        TooLargeError: By Content-Length before a byte is read, else as soon as the limit is exceeded.
        ClientDisconnect: The client has closed the connection.
    """
    too_large = TooLargeError(f"the request body is above the limit of {max_bytes} bytes")
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    more_body = True
    while more_body:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > max_bytes:
            raise too_large
        more_body = message.get("more_body", False)
    return b"".join(pieces)
