"""A request's body: read within its limits, parsed strictly."""

from typing import Any

import orjson
from starlette.requests import Request

from gateway.errors import (
    InvalidRequestError,
    TooLargeError,
    UnsupportedMediaTypeError,
)

JSON_TYPE = "application/json"

LARGE_BODY_BYTES = 4 * 1024 * 1024
MAX_CONTAINERS = 1_000_000
"""A body of nothing but empty arrays would take twenty times its size in memory. Brackets within texts count too."""


async def read_json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """Reads and parses the body.

    Args:
        request: nothing of its body has been read.
        max_bytes: limit of the body's size.

    Returns:
        The JSON object; of a key written twice, the last value.

    Raises:
        UnsupportedMediaTypeError: not `application/json`, or compressed.
        TooLargeError: above the limit; what is not read stays unread.
        InvalidRequestError: not JSON (RFC 8259, UTF-8), or no object.
    """
    check_media_type(request)
    body = await read_body(request, max_bytes=max_bytes)
    if len(body) > LARGE_BODY_BYTES and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequestError("the request body has too many arrays and objects")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # The parser's own text can hold pieces of the body.
        raise InvalidRequestError("the request body is not valid JSON") from error
    if not isinstance(value, dict):
        raise InvalidRequestError("the request body must be a JSON object")
    return value


def check_media_type(request: Request) -> None:
    """Lets plain UTF-8 JSON through.

    Raises:
        UnsupportedMediaTypeError: anything else.
    """
    content_type = request.headers.get("content-type", "")
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() != JSON_TYPE:
        raise UnsupportedMediaTypeError(f"the request body must be {JSON_TYPE}")
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise UnsupportedMediaTypeError("the request body must be in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaTypeError("compressed request bodies are not supported")


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """The body's bytes.

    Raises:
        TooLargeError: by Content-Length before a byte is read, else as soon as the limit is passed.
    """
    too_large = TooLargeError(f"the request body is above the limit of {max_bytes} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)
