"""Files inside strings: `data:image/png;base64,...`, alone, in an `<img>` tag, or in the middle of a text; and PDFs."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import InvalidItemError, TooLargeError

IMAGE_TYPES = ("png", "jpeg", "jpg", "webp", "gif")

PREFIX = "data:image/"
HEADER = re.compile(r"data:image/([a-z0-9.+-]{1,64})((?:;[a-z0-9.+_=-]{1,128}){0,8});base64,", re.IGNORECASE)
"""Scheme, type and parameters are case-insensitive (RFC 2397, RFC 2045)."""

PDF_HEADER = re.compile(r"data:application/(?:x-)?pdf(?:;[a-z0-9.+_=-]{1,128}){0,8};base64,", re.IGNORECASE)
PDF_PREFIX = re.compile(r"\s{0,64}data:application/(?:x-)?pdf\b", re.IGNORECASE)

PAYLOAD = re.compile(r"[A-Za-z0-9+/]+={0,2}")
TAG_START = re.compile(r"<img\b[^<>]{0,256}\bsrc\s{0,8}=\s{0,8}([\"'])$", re.IGNORECASE)
TAG_END = re.compile(r"([\"'])[^<>]{0,256}>", re.IGNORECASE)
HEADER_END = "64,"
"""In any case; enough to tell that most texts have no image."""
MAX_PREFIXES = 1000
TAG_WINDOW = 300
"""Characters on either side of a data URL that are searched for its tag."""


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A data URL found in a string.

    Attributes:
        url: The data URL.
        text: The text around it, trimmed.
    """

    url: str
    text: str


def is_data_url(text: str) -> bool:
    """Return whether the string begins like an image's data URL, well-formed or not."""
    return text[: len(PREFIX) + 64].lstrip()[: len(PREFIX)].lower() == PREFIX


def is_pdf_url(text: str) -> bool:
    """Return whether the string begins like the data URL of a PDF, well-formed or not."""
    return PDF_PREFIX.match(text) is not None


def find_image(text: str, index: int) -> InlineImage | None:
    """Find the data URL in a text, and remove the `<img>` tag around it.

    Args:
        text: The whole string.
        index: Position of the item, for the error.

    Returns:
        The image and the rest, or None if the text holds no image's data URL.

    Raises:
        InvalidItemError: There are two.
    """
    headers = find_headers(text, index)
    header = next(headers, None)
    payload = PAYLOAD.match(text, header.end()) if header else None
    if header is None or payload is None:
        return None
    start, end = header.start(), payload.end()
    tag_start = TAG_START.search(text[max(0, start - TAG_WINDOW) : start])
    tag_end = TAG_END.match(text[end : end + TAG_WINDOW])
    url = text[start:end]
    if tag_start and tag_end and tag_start[1] == tag_end[1]:
        start -= len(tag_start[0])
        end += tag_end.end()
    second = next((each for each in headers if each.start() >= end), None)
    if second and PAYLOAD.match(text, second.end()):
        raise InvalidItemError(index, "has more than one image")
    around = (text[:start].strip(), text[end:].strip())
    return InlineImage(url, " ".join(part for part in around if part))


def find_headers(text: str, index: int) -> Iterator[re.Match[str]]:
    """Yield the beginnings of an image's data URLs in a text.

    Searching for constants takes a tenth of the time of the pattern, which is a second for the longest texts.

    Raises:
        InvalidItemError: Too many data URLs begin like one.
    """
    if HEADER_END not in text:
        return
    content = text.encode().lower()  # of ASCII only, so that every character keeps its size
    if content.count(PREFIX.encode()) > MAX_PREFIXES:
        raise InvalidItemError(index, f'has "{PREFIX}" more than {MAX_PREFIXES} times')
    position = end = 0
    while (start := content.find(PREFIX.encode(), end)) >= 0:
        position += len(content[end:start].decode())
        end = start
        if header := HEADER.match(text, position):
            yield header
        position += len(PREFIX)
        end += len(PREFIX)


def decode_data_url(url: str, index: int, max_bytes: int) -> bytes:
    """Return the encoded image in a data URL, without looking at its content.

    Args:
        url: A string for which `is_data_url` holds.
        index: Position of the item, for the errors.
        max_bytes: Limit of the decoded size, checked before anything is decoded.

    Raises:
        InvalidItemError: Not a base64 data URL of a supported type.
        TooLargeError: Above the limit.
    """
    url = url.strip()
    header = HEADER.match(url)
    if header is None:
        raise InvalidItemError(index, "is not a valid image data URL; write data:image/png;base64,...")
    if header[1].lower() not in IMAGE_TYPES:
        raise InvalidItemError(index, "has an unsupported image type; use PNG, JPEG, WebP or GIF")
    return decode_payload(url, header.end(), index, max_bytes, "an image")


def decode_pdf_url(url: str, index: int, max_bytes: int) -> bytes:
    """Return the PDF in a data URL, without looking at its content; arguments and errors as `decode_data_url`."""
    url = url.strip()
    header = PDF_HEADER.match(url)
    if header is None:
        raise InvalidItemError(index, "is not a valid PDF data URL; write data:application/pdf;base64,...")
    return decode_payload(url, header.end(), index, max_bytes, "a PDF")


def decode_payload(url: str, start: int, index: int, max_bytes: int, kind: str) -> bytes:
    """Return the bytes that the base64 from a position of a data URL on stands for.

    Args:
        url: Without spaces around it.
        start: Where the payload begins.
        index: Position of the item, for the errors.
        max_bytes: Limit of the decoded size, checked before anything is decoded.
        kind: What the file is, for the errors.

    Raises:
        InvalidItemError: Not base64, or empty.
        TooLargeError: Above the limit.
    """
    payload_chars = len(url) - start
    padding = 2 if url.endswith("==") else int(url.endswith("="))
    if payload_chars * 3 // 4 - padding > max_bytes:
        raise TooLargeError(f"input[{index}] has {kind} above the limit of {max_bytes} bytes", param=f"input[{index}]")
    try:
        file = base64.b64decode(url[start:], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidItemError(index, f"has {kind} data URL that is not valid base64") from error
    if not file:
        raise InvalidItemError(index, f"has {kind} data URL without content")
    return file
