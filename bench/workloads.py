"""The items that are embedded: runs of real words, the same in every run of the benchmark."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from bench.settings import PROJECT
from export.sample_texts import SAMPLE_TEXTS

SEED = 20
POOL_ITEMS = 512
"""Different items of a workload; longer runs repeat them."""


@dataclass(frozen=True)
class TextKind:
    """How long the texts of a workload are: a number of words, or any of a range of tokens, each as likely."""

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


def load_words() -> list[str]:
    """Return the words of the licence: English, with its commas and full stops."""
    return (PROJECT / "LICENSE").read_text(encoding="utf-8").split()


def load_sentences() -> list[str]:
    """Return 130 real texts of many scripts, short ones most: those that exports are checked with, and the tests'."""
    listed = (PROJECT / "tests" / "data" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    return [*listed, *SAMPLE_TEXTS]


class TextWriter:
    """Writes texts by words or by tokens."""

    def __init__(self, tokenizer_path: Path) -> None:
        """Load the tokenizer that counts.

        Args:
            tokenizer_path: The measured model's `tokenizer.json`.
        """
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._words = load_words()

    def write(self, kind: TextKind, count: int = POOL_ITEMS) -> list[str]:
        """Write the texts of a workload."""
        chooser = random.Random(SEED)  # noqa: S311 - nothing secret
        if kind.words:
            return [self.write_words(kind.words, chooser) for _ in range(count)]
        return [self.write_tokens(chooser.randint(kind.min_tokens, kind.max_tokens), chooser) for _ in range(count)]

    def write_words(self, count: int, chooser: random.Random) -> str:
        """Write a run of so many words."""
        start = chooser.randrange(len(self._words) - count)
        return " ".join(self._words[start : start + count])

    def write_tokens(self, count: int, chooser: random.Random) -> str:
        """Write a text of exactly so many tokens, the special ones at both ends included."""
        text = self.write_words(count, chooser)  # a word is a token or more: always enough
        ends = [end for _, end in self._tokenizer.encode(text).offsets[1:-1]]
        return text[: ends[count - 3]]
