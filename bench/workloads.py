"""The items that are embedded: runs of real words, the same in every run of the benchmark."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer

from bench.settings import PROJECT

SEED = 20
POOL_ITEMS = 512
"""Different items of a workload; longer runs repeat them."""

SHORT, MIXED, PASSAGES = "12 words", "8-256 tokens", "256 tokens"


class TextWorkloads:
    """Texts by words or by tokens."""

    def __init__(self, tokenizer_path: Path) -> None:
        """Load the tokenizer that counts.

        Args:
            tokenizer_path: The measured model's `tokenizer.json`.
        """
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._words = (PROJECT / "LICENSE").read_text(encoding="utf-8").split()

    def make(self, workload: str, count: int = POOL_ITEMS) -> list[str]:
        """Write the texts of a workload, by its name."""
        chooser = random.Random(SEED)  # noqa: S311 - nothing secret
        match workload:
            case "12 words":
                return [self.write_words(12, chooser) for _ in range(count)]
            case "8-256 tokens":
                return [self.write_tokens(chooser.randint(8, 256), chooser) for _ in range(count)]
            case "256 tokens":
                return [self.write_tokens(256, chooser) for _ in range(count)]
        raise ValueError(f"no workload {workload}")

    def write_words(self, count: int, chooser: random.Random) -> str:
        """Write a run of so many words."""
        start = chooser.randrange(len(self._words) - count)
        return " ".join(self._words[start : start + count])

    def write_tokens(self, count: int, chooser: random.Random) -> str:
        """Write a text of exactly so many tokens, special tokens included."""
        text = self.write_words(count, chooser)
        encoding = self._tokenizer.encode(text)
        ends = [end for _, end in encoding.offsets[1:-1]]  # a word of a token or more: always enough
        return text[: ends[count - 3]]
