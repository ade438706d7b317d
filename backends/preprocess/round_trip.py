"""Detects token ids of another tokenizer: decoded and encoded again, they come out different."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from operator import eq

from tokenizers import Tokenizer

PARTIAL = "\ufffd"
"""What a decoder writes for a part of a character."""
MAX_PARTIAL_TOKENS = 8
"""Tokens in a row that neither begin nor end with a whole character; four were the most in texts of many scripts."""
WINDOW_TOKENS = 8
"""Tokens to decode to see the characters that the first or last of them is a part of."""


class RoundTrip:
    """Decodes token ids with a tokenizer and encodes the text again.

    A text that was cut into chunks after it was tokenised still passes. A chunk may begin inside a word or even a
    character, so what does not survive as it is gets a second look at its ends.

    Args:
        tokenizer: Encodes special tokens within a text as text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.opaque_ids = {token_id for token_id, token in added.items() if token.special}
        unknown = getattr(tokenizer.model, "unk_token", None)
        if unknown is not None:
            self.opaque_ids.add(tokenizer.token_to_id(unknown))

    def survives(self, bodies: Sequence[Sequence[int]]) -> list[bool]:
        """Return whether each sequence survives, leaving out special and unknown tokens, which have no text.

        A sequence of a single token that is a word nearly always does, whichever tokenizer it comes from.

        Args:
            bodies: Token ids in the vocabulary.
        """
        runs = [(index, run) for index, body in enumerate(bodies) for run in self.split(body)]
        survived = [True] * len(bodies)
        for (index, run), again in zip(runs, self.encode_again([run for _, run in runs]), strict=True):
            if run != again and not self.survives_as_chunk(run):
                survived[index] = False
        return survived

    def split(self, body: Sequence[int]) -> Iterator[list[int]]:
        """Yield the tokens between special and unknown ones."""
        run: list[int] = []
        for token_id in body:
            if token_id not in self.opaque_ids:
                run.append(token_id)
            elif run:
                yield run
                run = []
        if run:
            yield run

    def encode_again(self, runs: Sequence[list[int]]) -> list[list[int]]:
        """Return the token ids of the text of each run."""
        texts = self.tokenizer.decode_batch(runs, skip_special_tokens=False)
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def survives_as_chunk(self, run: list[int]) -> bool:
        """Return whether a run survives but for its ends, where a longer text may have been cut."""
        if any(self.tokenizer.id_to_token(token_id) is None for token_id in run):
            return False
        core = self.strip_ends(run)
        if not core:
            return True
        candidates = [core, [*self.anchor, *core]]
        return any(map(eq, self.encode_again(candidates), candidates))

    def strip_ends(self, run: list[int]) -> list[int]:
        """Remove partial characters and tokens without a letter from both ends.

        How digits, spaces and punctuation are grouped depends on what was before and after them.
        """
        start = count_letterless(self.read_forwards(run))
        end = len(run) - count_letterless(self.read_backwards(run[start:]))
        return run[start:end]

    def read_forwards(self, run: list[int]) -> Iterator[tuple[str, str]]:
        """Yield the text that begins with each token, and the text of that token alone."""
        for start in range(len(run)):
            yield self.decode(run[start : start + WINDOW_TOKENS]), self.decode(run[start : start + 1])

    def read_backwards(self, run: list[int]) -> Iterator[tuple[str, str]]:
        """Yield the text that ends with each token, and the text of that token alone, last character first."""
        for end in range(len(run), 0, -1):
            window = run[max(0, end - WINDOW_TOKENS) : end]
            yield self.decode(window)[::-1], self.decode(window[-1:])[::-1]

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @cached_property
    def anchor(self) -> list[int]:
        """Token ids of a text that changes no token after it, so that a chunk may begin inside a word.

        A line break where it is a token; elsewhere a letter that no token continues. Empty if there is neither.
        """
        tokens = self.tokenizer.get_vocab(with_added_tokens=False)
        continued = {character for token in tokens for character in token[:-1]}
        letters = {token for token in tokens if len(token) == 1 and unicodedata.category(token) == "Ll"}
        for text in sorted({"\n", *letters} - continued):  # the line break first
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
            if ids and not self.opaque_ids.intersection(ids) and self.decode(ids).strip(" ") == text:
                return ids
        return []


def count_letterless(tokens: Iterable[tuple[str, str]]) -> int:
    """Count the tokens before the first with a letter or a part of one, if it is at the beginning of a character.

    Args:
        tokens: For each token, the text from there on and the text of the token alone.
    """
    count = partial = 0
    for text, token in tokens:
        if text.startswith(PARTIAL):
            partial += 1
        else:
            partial = 0
            complete = token.rstrip(PARTIAL)
            touched = token if complete == token else text[: len(complete) + 1]
            if any(map(str.isalpha, touched)):
                break
        if partial > MAX_PARTIAL_TOKENS:
            return 0
        count += 1
    return count
