"""Page images: text in lines on white paper, as scanned documents look to a model."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from bench.workloads import load_words

PAGE_SIZE = (1275, 1650)
"""US letter at 150 dots per inch; the flagship cuts it into six tiles and a thumbnail."""

LINES, MARGIN, LINE_HEIGHT = 60, 90, 24
SEED = 7
POOL_PAGES = 8
"""Different pages of a workload; longer runs repeat them."""

PNG_PAGES, JPEG_PAGES, PAGES_AND_TEXTS = "pages, PNG", "pages, JPEG", "1 page, 7 texts"
PAGE_KINDS = {PNG_PAGES: "PNG", JPEG_PAGES: "JPEG"}
TEXTS = 7
"""Texts to a page where both are mixed."""


def draw_page(words: Sequence[str], seed: int = SEED) -> Image.Image:
    """Draw a page of random lines of words, RGB."""
    chooser = random.Random(seed)  # noqa: S311 - nothing secret
    page = Image.new("RGB", PAGE_SIZE, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    for line in range(LINES):
        text = " ".join(chooser.choices(words, k=12))
        pen.text((MARGIN, MARGIN + line * LINE_HEIGHT), text, fill="black", font=font)
    return page


def encode_page(page: Image.Image, kind: str) -> bytes:
    """Return a page as a PNG or JPEG file."""
    file = io.BytesIO()
    page.save(file, kind)
    return file.getvalue()


def page_files() -> dict[str, list[bytes]]:
    """Return the pages as files, by workload."""
    words = load_words()
    pages = [draw_page(words, SEED + number) for number in range(POOL_PAGES)]
    return {name: [encode_page(page, kind) for page in pages] for name, kind in PAGE_KINDS.items()}


def page_workloads(files: Mapping[str, Sequence[bytes]], texts: Sequence[str]) -> dict[str, list[str]]:
    """Return every workload with pages in it, as the API takes them: data URLs, and texts among them."""
    urls = {name: [data_url(file, PAGE_KINDS[name]) for file in of_kind] for name, of_kind in files.items()}
    mixed: list[str] = []
    for number, url in enumerate(urls[PNG_PAGES]):
        mixed += [url, *texts[TEXTS * number : TEXTS * (number + 1)]]
    return {**urls, PAGES_AND_TEXTS: mixed}


def data_url(file: bytes, kind: str) -> str:
    """Return a file as a data URL."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file).decode()}"
