"""Items to embed: runs of real words and page images, the same in every run of the benchmark."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

from bench.settings import PROJECT
from export.sample_texts import SAMPLE_TEXTS

TEXT_SEED = 20
# Distinct texts in a workload; longer runs repeat them.
POOL_TEXTS = 512


@dataclass(frozen=True)
class TextKind:
    """Length of the texts of a workload: a number of words, or a range of token counts, each equally likely."""

    words: int = 0
    min_tokens: int = 0
    max_tokens: int = 0


SHORT, MIXED, PASSAGES, TINY = "12 words", "8-256 tokens", "256 tokens", "3 words"
TOKEN_LENGTHS = (8, 16, 32, 64, 128, 256)

TEXT_KINDS: Mapping[str, TextKind] = {
    SHORT: TextKind(words=12),
    TINY: TextKind(words=3),
    MIXED: TextKind(min_tokens=8, max_tokens=256),
    **{f"{length} tokens": TextKind(min_tokens=length, max_tokens=length) for length in TOKEN_LENGTHS},
}

# US letter at 150 dots per inch; the flagship cuts it into six tiles and a thumbnail.
PAGE_SIZE = (1275, 1650)
PAGE_LINES, WORDS_PER_LINE, MARGIN_PX, LINE_HEIGHT_PX, FONT_SIZE_PX = 60, 12, 90, 24, 18
PAGE_SEED = 7
# Distinct pages in a workload; longer runs repeat them.
POOL_PAGES = 8

PNG_PAGES, JPEG_PAGES, PAGES_AND_TEXTS = "pages, PNG", "pages, JPEG", "1 page, 7 texts"
PAGE_FORMATS = {PNG_PAGES: "PNG", JPEG_PAGES: "JPEG"}
TEXTS_PER_PAGE = 7


def load_words() -> list[str]:
    """Return the words of the licence: English, with its commas and full stops."""
    return (PROJECT / "LICENSE").read_text(encoding="utf-8").split()


def load_sentences() -> list[str]:
    """Return 130 real texts in many scripts, mostly short: those that exports are checked with, and the tests'."""
    listed = (PROJECT / "tests" / "data" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    return [*listed, *SAMPLE_TEXTS]


class TextWriter:
    """Writes texts of a given number of words or tokens.

    Args:
        tokenizer_path: `tokenizer.json` of the model under test.
    """

    def __init__(self, tokenizer_path: Path) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._words = load_words()

    def write(self, kind: TextKind) -> list[str]:
        """Write the texts of a workload."""
        chooser = random.Random(TEXT_SEED)  # noqa: S311 - not a secret
        if kind.words:
            return [self._write_words(kind.words, chooser) for _ in range(POOL_TEXTS)]
        counts = (chooser.randint(kind.min_tokens, kind.max_tokens) for _ in range(POOL_TEXTS))
        return [self._write_tokens(count, chooser) for count in counts]

    def _write_words(self, count: int, chooser: random.Random) -> str:
        start = chooser.randrange(len(self._words) - count)
        return " ".join(self._words[start : start + count])

    def _write_tokens(self, count: int, chooser: random.Random) -> str:
        """Write a text of exactly `count` tokens, including the special token at each end."""
        text = self._write_words(count, chooser)  # a word is at least one token: always long enough
        ends = [end for _, end in self._tokenizer.encode(text).offsets[1:-1]]
        return text[: ends[count - 3]]


def draw_page(words: Sequence[str], seed: int) -> Image.Image:
    """Draw a page of random words in black on white, as scanned documents look to a model."""
    chooser = random.Random(seed)  # noqa: S311 - not a secret
    page = Image.new("RGB", PAGE_SIZE, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE_PX)
    for line in range(PAGE_LINES):
        text = " ".join(chooser.choices(words, k=WORDS_PER_LINE))
        pen.text((MARGIN_PX, MARGIN_PX + line * LINE_HEIGHT_PX), text, fill="black", font=font)
    return page


def encode_page(page: Image.Image, image_format: str) -> bytes:
    """Encode a page as PNG or JPEG."""
    file = io.BytesIO()
    page.save(file, image_format)
    return file.getvalue()


def make_page_files() -> dict[str, list[bytes]]:
    """Return the encoded pages of each workload."""
    words = load_words()
    pages = [draw_page(words, PAGE_SEED + number) for number in range(POOL_PAGES)]
    return {name: [encode_page(page, format_) for page in pages] for name, format_ in PAGE_FORMATS.items()}


def make_page_workloads(files: Mapping[str, Sequence[bytes]], texts: Sequence[str]) -> dict[str, list[str]]:
    """Return every workload with pages in it as the API takes them: data URLs, and texts in between."""
    urls = {name: [make_data_url(file, PAGE_FORMATS[name]) for file in encoded] for name, encoded in files.items()}
    mixed: list[str] = []
    for number, url in enumerate(urls[PNG_PAGES]):
        mixed += [url, *texts[TEXTS_PER_PAGE * number : TEXTS_PER_PAGE * (number + 1)]]
    return {**urls, PAGES_AND_TEXTS: mixed}


def make_data_url(file: bytes, image_format: str) -> str:
    """Return an image file as a data URL."""
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(file).decode()}"
