"""What is fuzzed: the parsers of everything that a stranger can send, and what must hold whatever comes in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from gateway.api.body import parse_body
from gateway.api.cohere import CohereBody
from gateway.api.compatibility import CompatibleBody, build_compatible_request
from gateway.api.inputs import read_string
from gateway.api.openai_nim import RankingBody
from gateway.api.openrouter import OpenRouterBody
from gateway.api.request import Body, EmbeddingsBody
from gateway.api.rerank import OpenRouterRerankBody, RerankBody
from gateway.api.tei import TeiBody, TeiRerankBody
from gateway.errors import GatewayError
from gateway.fetch.urls import UnfetchableError, UrlRules
from gateway.settings import Settings
from gateway.types import ItemWithFile
from preprocess.decode import check_png_chunks, read_canvas, read_format, read_orientation
from preprocess.decode_pool import DecodePool
from preprocess.items import ImageError, ImageFile
from preprocess.settings import ImageLimits

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"
FINDINGS = CORPUS / "findings"

MAX_PARSE_S = 5.0
"""A parser that takes longer over a few kilobytes hangs, however busy the machine is."""

MAX_MESSAGE_CHARS = 200
MAX_BYTES = 4096
LIMITS = ImageLimits(max_bytes=1 << 20, max_long_side=2048, max_short_side=1024)
DECODE_TIME_LIMIT_S = 20.0

SETTINGS = Settings()
BODIES: tuple[type[Body], ...] = (
    EmbeddingsBody,
    CompatibleBody,
    OpenRouterBody,
    CohereBody,
    TeiBody,
    RankingBody,
    RerankBody,
    OpenRouterRerankBody,
    TeiRerankBody,
)
URL_RULES = UrlRules(schemes=frozenset({"http", "https"}))


@contextmanager
def only(*allowed: type[Exception]) -> Iterator[None]:
    """Let a parser return, or raise one of its own errors with a message fit for a client; and soon."""
    began_s = time.perf_counter()
    try:
        yield
    except allowed as error:
        assert len(str(error)) < MAX_MESSAGE_CHARS + len("pdf_invalid: "), f"a long message: {error}"
    assert time.perf_counter() - began_s < MAX_PARSE_S, "the parser hangs"


def check_body(data: bytes) -> None:
    """Parse a request body as every dialect's, and build the items of OpenAI's."""
    for kind in BODIES:
        with only(GatewayError):
            body = parse_body(data, kind, CompatibleBody if kind is EmbeddingsBody else None)
            if isinstance(body, EmbeddingsBody):
                build_compatible_request(body, SETTINGS)


def check_data_url(data: bytes) -> None:
    """Read a string as an item: a text, a data URL, or a text around one."""
    text = data.decode("utf-8", errors="replace")
    for modality in (None, "text", "image"):
        with only(GatewayError):
            item = read_string(0, text, modality, MAX_BYTES)
            if isinstance(item, ItemWithFile):
                assert isinstance(item.file, bytes)
                assert 0 < len(item.file) <= MAX_BYTES


def check_url(data: bytes) -> None:
    """Parse an image's URL; another reader must see the same host, port and scheme in what is fetched."""
    with only(UnfetchableError):
        parsed = URL_RULES.parse(data.decode("utf-8", errors="replace"))
        canonical = str(parsed)
        seen = urlsplit(canonical)
        assert canonical.isascii() and canonical.isprintable() and " " not in canonical
        assert (seen.scheme, seen.hostname, seen.username) == (parsed.scheme, parsed.host, None)
        assert (seen.port or {"http": 80, "https": 443}[seen.scheme]) == parsed.port
        assert URL_RULES.parse(canonical) == parsed


def check_image_header(data: bytes) -> None:
    """Read the format, size, checksums and orientation of an image."""
    assert 1 <= read_orientation(data) <= 8
    with only(ImageError):
        image_format = read_format(data)
        canvas = read_canvas(data, image_format)
        assert canvas is None or min(canvas) >= 0
        if image_format == "PNG":
            check_png_chunks(data)


@cache
def open_pool() -> DecodePool:
    """Return the decoding process, which the fuzzer keeps."""
    return DecodePool(1, DECODE_TIME_LIMIT_S, 2 << 30, limits=LIMITS)


def check_decoder(data: bytes, page: int = 0) -> None:
    """Decode an image, or a page of a PDF, in a process: a crash, a hang or a shortage of memory is a finding."""
    [result] = open_pool().preprocess([ImageFile(data, page)])
    if isinstance(result, ImageError):
        assert len(str(result)) < MAX_MESSAGE_CHARS
        assert "took too long" not in result.message, "the decoder crashed or hung"
        assert "memory" not in result.message, "the decoder takes too much memory"
    else:
        assert result.patches.size


def check_pdf(data: bytes) -> None:
    """Render the first two pages of a PDF."""
    for page in (1, 2):
        check_decoder(data, page)


TARGETS: Mapping[str, tuple[str, Target]] = {
    "body": ("body", check_body),
    "data_url": ("data_url", check_data_url),
    "url": ("url", check_url),
    "image_header": ("image", check_image_header),
    "image": ("image", check_decoder),
    "pdf": ("pdf", check_pdf),
}
"""Of each target its folder of seeds, and the function that raises on a finding."""


@cache
def read_seeds(folder: str) -> tuple[bytes, ...]:
    """Return the files of a folder of the corpus."""
    return tuple(path.read_bytes() for path in sorted((CORPUS / folder).iterdir()))
