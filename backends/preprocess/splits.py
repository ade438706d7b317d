"""Finds where a text can be split so that its pieces, tokenised alone, have the same tokens as the whole.

A tokenizer normalises a text, splits it into words, and tokenises each word alone. So a split is exact wherever the
tokenizer certainly splits, whatever else the text contains. That follows from the definition of a few normalizers and
pre-tokenizers; with any other, nothing is certain, and there are no splits.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

# Letters in every version of Unicode that a tokenizer may know, of the scripts with most long texts.
LETTERS = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0233\u0391-\u03a1\u03a3-\u03ce\u0410-\u044f\u0561-\u0586\u05d0-\u05ea"
    "\u0621-\u063a\u0641-\u064a\u0905-\u0939\u0e01-\u0e30\u10d0-\u10f0\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
IDEOGRAPHS = "\u4e00-\u9fa5\u3400-\u4db5"
ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"
ASCII_PUNCTUATION_BUT_APOSTROPHE = r"!-&(-/:-@\[-`{-~"
EAST_ASIAN_PUNCTUATION = "\u3001\u3002\u300c\u300d\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"

BEFORE_SPACE = re.compile(f"(?<=[{LETTERS}0-9{ASCII_PUNCTUATION}])(?= )")
"""Wherever words begin at spaces."""

BEFORE_WHITESPACE = re.compile(f"(?<=[{LETTERS}0-9{ASCII_PUNCTUATION}])(?=[ \\n\\t\\r])")
"""Wherever white space ends words and is dropped."""

AFTER_LETTER = re.compile(
    f"{BEFORE_SPACE.pattern}|(?<=[{LETTERS}])(?=[\\n\\t{ASCII_PUNCTUATION_BUT_APOSTROPHE}{EAST_ASIAN_PUNCTUATION}])"
)
"""For `WORD_PATTERNS`: they read from left to right, and none has a match with a letter before one of these."""

AT_PUNCTUATION = re.compile(f"(?=[ \\n\\t\\r{ASCII_PUNCTUATION}{EAST_ASIAN_PUNCTUATION}])")
"""For BERT's pre-tokenizer, which makes a word of each punctuation character."""

AT_PUNCTUATION_OR_IDEOGRAPH = re.compile(f"{AT_PUNCTUATION.pattern}|(?=[{IDEOGRAPHS}])")
"""For BERT's normalizer as well, which puts spaces around ideographs."""

WORD_PATTERNS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"  # Llama 3
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"  # Qwen 2
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

LOCAL_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents",
}  # fmt: skip
"""What these make of a character depends on no character beyond its own grapheme."""

SEARCH_CHARS = 256
"""Characters searched at a time for the last split."""

PROBE = """The cat's 3rd mat: it sat, "on 12.5" (e\u0301t\u00e9)

\tcan't! \u4eba\u751f\u3002 \u041c\u0438\u0440, \u05e9\u05dc\u05d5\u05dd  x-y_z; THE END.\n"""


class Splits:
    """The exact splits of texts for a tokenizer.

    Args:
        tokenizer: Encodes special tokens within a text as text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.pattern = find_pattern(tokenizer)
        if self.pattern is not None and not self.hold_for(tokenizer, PROBE):
            self.pattern = None

    def hold_for(self, tokenizer: Tokenizer, text: str) -> bool:
        """Return whether the pieces of a text, each as short as possible, have the tokens of the whole."""
        pieces = list(self.cut(text, max_chars=1))
        encodings = tokenizer.encode_batch_fast([text, *pieces], add_special_tokens=False)
        whole, *parts = [list[int](encoding.ids) for encoding in encodings]
        return whole == [token_id for part in parts for token_id in part]

    def is_at(self, text: str, position: int) -> bool:
        """Return whether there is a split before the character at a position above 0."""
        return self.pattern is not None and self.pattern.match(text, position) is not None

    def find_first(self, text: str, start: int) -> int | None:
        """Return the first split from `start` (above 0) on, if there is one."""
        found = self.pattern.search(text, start) if self.pattern is not None else None
        return found.start() if found else None

    def find_last(self, text: str, start: int, end: int) -> int | None:
        """Return the last split from `start` (above 0) up to and including `end`, if there is one."""
        if self.pattern is None:
            return None
        for high in range(end, start - 1, -SEARCH_CHARS):
            low = max(start, high - SEARCH_CHARS + 1)
            found = deque(self.pattern.finditer(text, low, high + 1), maxlen=1)
            if found:
                return found[0].start()
        return None

    def cut(self, text: str, max_chars: int) -> Iterator[str]:
        """Yield the pieces of a text.

        Args:
            text: Of any length.
            max_chars: Most characters of a piece, unless there is no split.
        """
        start = 0
        while len(text) - start > max_chars:
            split = self.find_last(text, start + 1, start + max_chars) or self.find_first(text, start + max_chars)
            if split is None:
                break
            yield text[start:split]
            start = split
        yield text[start:]


def find_pattern(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Return a pattern that matches, with no width, where a tokenizer certainly splits any text."""
    if any(not token.special for token in tokenizer.get_added_tokens_decoder().values()):
        return None  # they may span several words
    normalizers = read_parts(tokenizer.normalizer, "normalizers")
    pre_tokenizers = read_parts(tokenizer.pre_tokenizer, "pretokenizers")
    if not pre_tokenizers or not all(map(is_local, normalizers)):
        return None
    keeps_letters = all(part["type"] == "NFC" for part in normalizers)
    match [part["type"] for part in pre_tokenizers]:
        case ["BertPreTokenizer"]:
            spaced = any(part.get("handle_chinese_chars") for part in normalizers)
            return AT_PUNCTUATION_OR_IDEOGRAPH if spaced else AT_PUNCTUATION
        case ["WhitespaceSplit", *_]:
            # SentencePiece's normalisation of a line break is part of the checkpoint.
            return BEFORE_SPACE if "Precompiled" in {part["type"] for part in normalizers} else BEFORE_WHITESPACE
        case ["Metaspace"] if pre_tokenizers[0].get("split", True):
            return BEFORE_SPACE
        case ["ByteLevel"] if is_byte_level(pre_tokenizers[0], use_regex=True):
            return AFTER_LETTER if keeps_letters else BEFORE_SPACE
        case ["Split", "ByteLevel"] if splits_words(*pre_tokenizers):
            return AFTER_LETTER if keeps_letters else BEFORE_SPACE
    return None


def read_parts(component: Any, name: str) -> Sequence[Mapping[str, Any]]:
    """Return the parts of a normalizer or pre-tokenizer as `tokenizer.json` describes them."""
    if component is None:
        return []
    description = json.loads(component.__getstate__())
    return description[name] if description["type"] == "Sequence" else [description]


def is_local(normalizer: Mapping[str, Any]) -> bool:
    """Return whether a normalizer changes what is before a split independently of what is after it."""
    match normalizer["type"]:
        case "Replace":
            return bool(normalizer["pattern"] == {"Regex": " {2,}"})
        case "Strip":
            return not normalizer["strip_left"]
        case kind:
            return kind in LOCAL_NORMALIZERS


def is_byte_level(part: Mapping[str, Any], use_regex: bool) -> bool:
    """Return whether a byte-level pre-tokenizer adds no space, and splits words itself or leaves that to another."""
    return not part["add_prefix_space"] and part.get("use_regex", True) is use_regex


def splits_words(split: Mapping[str, Any], byte_level: Mapping[str, Any]) -> bool:
    """Return whether two pre-tokenizers make a word of each match of a known pattern, and nothing else."""
    is_known = split["pattern"].get("Regex") in WORD_PATTERNS
    isolates = split["behavior"] == "Isolated" and not split["invert"]
    return is_known and isolates and is_byte_level(byte_level, use_regex=False)
