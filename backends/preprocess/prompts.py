"""Tokenises prompts of any length in bounded pieces, and reads of a very long one only what truncation keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from preprocess.items import ItemError, Truncate
from preprocess.splits import Splits

MAX_CHARS_PER_TOKEN = 64
MIN_READ_CHARS = 65_536

PIECE_CHARS = 16_384
"""Longer texts are tokenised in pieces. A tokenizer takes up to 500 bytes of memory per character."""

BATCH_CHARS = 65_536
"""Most characters of the texts that are tokenised together."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and what the model wants before it.

    Attributes:
        prefix: Never cut.
        text: Of any length.
        truncate: Which end of the text is cut if it is too long.
        max_tokens: The model's limit, special, prefix and image tokens included.
    """

    prefix: str
    text: str
    truncate: Truncate
    max_tokens: int


class PromptReader:
    """Turns prompts into token ids without special tokens.

    Up to `count_read_chars` characters of a text are tokenised, in pieces that have the same tokens as the whole. Of a
    longer one, only as many characters from its beginning or end are, as truncation keeps no token of the others.

    Args:
        tokenizer: Encodes special tokens within a text as text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.splits = Splits(tokenizer)

    def read(self, prompts: Sequence[Prompt]) -> list[list[int] | ItemError]:
        """Return the token ids of each prompt, or its error.

        Of a prompt too long to be tokenised as a whole they are more than `max_tokens`, and begin or end like those of
        the whole.
        """
        bodies: list[list[int] | ItemError] = [[]] * len(prompts)
        batch: list[int] = []
        batch_chars = 0
        for index, prompt in enumerate(prompts):
            chars = len(prompt.text)
            if chars > PIECE_CHARS:
                bodies[index] = self.read_long(prompt)
                continue
            if batch_chars + chars > BATCH_CHARS:
                self.read_batch(batch, prompts, bodies)
                batch, batch_chars = [], 0
            batch.append(index)
            batch_chars += chars
        self.read_batch(batch, prompts, bodies)
        return bodies

    def read_batch(
        self, indices: Sequence[int], prompts: Sequence[Prompt], bodies: list[list[int] | ItemError]
    ) -> None:
        """Tokenise the prompts at some indices together."""
        texts = [prompts[index].prefix + prompts[index].text for index in indices]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for index, encoding in zip(indices, encodings, strict=True):
            bodies[index] = encoding.ids

    def read_long(self, prompt: Prompt) -> list[int] | ItemError:
        """Tokenise a prompt in pieces; of one above the limit of characters, only what truncation keeps."""
        chars, read_chars = len(prompt.text), count_read_chars(prompt.max_tokens)
        if chars <= read_chars:
            return self.encode(prompt.prefix + prompt.text)
        match prompt.truncate:
            case Truncate.NONE:
                return ItemError(
                    "text_too_long",
                    f"{chars} characters exceed the limit of {read_chars} for {prompt.max_tokens} tokens; truncate END "
                    "or START cuts them",
                )
            case Truncate.END:
                ids = self.read_beginning(prompt, read_chars)
            case Truncate.START:
                ids = self.read_end(prompt, read_chars)
        if len(ids) > prompt.max_tokens:
            return ids
        side = "first" if prompt.truncate is Truncate.END else "last"
        return ItemError(
            "text_too_long",
            f"the {side} {read_chars} characters do not tell which {prompt.max_tokens} tokens truncation keeps; "
            "shorten the text",
        )

    def read_beginning(self, prompt: Prompt, read_chars: int) -> list[int]:
        """Return the token ids of the beginning of a prompt up to a split; none if there is no split."""
        start = len(prompt.prefix) + read_chars // 2
        split = self.splits.find_last(
            prompt.prefix + prompt.text[: read_chars + 1], start, len(prompt.prefix) + read_chars
        )
        return [] if split is None else self.encode((prompt.prefix + prompt.text[:read_chars])[:split])

    def read_end(self, prompt: Prompt, read_chars: int) -> list[int]:
        """Return the token ids of the prefix, and of the end of the text from a split on; none if there is no split."""
        end = prompt.text[-read_chars - 1 :]  # with the character before the first that may be read
        split = self.splits.find_first(end, 1)
        if split is None or split > read_chars // 2 or not self.is_separate(prompt.prefix):
            return []
        return self.encode(prompt.prefix.rstrip()) + self.encode(end[split:])

    def is_separate(self, prefix: str) -> bool:
        """Return whether the tokens of a prefix, without its trailing space, are the same before any text."""
        return not prefix or self.splits.is_at(prefix, len(prefix.rstrip()))

    def count_prefix(self, prompt: Prompt) -> int:
        """Count the tokens of a prompt that end within its prefix, without its trailing space."""
        end = len(prompt.prefix.rstrip())
        if self.is_separate(prompt.prefix):
            return len(self.encode(prompt.prefix[:end]))
        beginning = next(self.splits.cut(prompt.prefix + prompt.text, PIECE_CHARS))
        encoding = self.tokenizer.encode(beginning, add_special_tokens=False)
        return sum(stop <= end for _, stop in encoding.offsets) if end else 0

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length."""
        pieces = self.splits.cut(text, PIECE_CHARS)
        return [token_id for piece in pieces for token_id in self.tokenizer.encode(piece, add_special_tokens=False).ids]


def count_read_chars(max_tokens: int) -> int:
    """Return how many characters of a text are tokenised, for a limit of tokens."""
    return max(MAX_CHARS_PER_TOKEN * max_tokens, MIN_READ_CHARS)
