"""A query and documents to the token ids of a reranker: one sequence for each document, which alone is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocess.items import ItemError, RequestError, TokenSequence, Truncate
from preprocess.prompts import Prompt, PromptReader, count_read_chars
from preprocess.settings import ImageSettings, TextSettings
from preprocess.tokenization import join, load_tokenizer


@dataclass(frozen=True, slots=True)
class TokenizedQuery:
    """What the sequences of a request have in common, tokenised once.

    Attributes:
        before_image: Token ids before those of an image.
        ids: Token ids between an image and the document.
        prefix: Text that is tokenised with each document, as its tokens may depend on it.
    """

    before_image: list[int]
    ids: list[int]
    prefix: str


class PairTokenizer:
    """Turns a query and each of its documents into the token ids of one sequence.

    Args:
        tokenizer_path: A `tokenizer.json` as the tokenizers library writes it.
        settings: Prefixes and limits of the model, and how it joins pairs.
        image: Prompt of its images; None for documents without images.
    """

    def __init__(self, tokenizer_path: Path, settings: TextSettings, image: ImageSettings | None = None) -> None:
        assert settings.pair is not None  # noqa: S101 - the configuration says that it is a reranker
        self.settings, self.pair, self.limit = settings, settings.pair, settings.max_passage_tokens
        tokenizer, _ = load_tokenizer(tokenizer_path)
        self.reader = PromptReader(tokenizer)
        self.before_image = [*self.pair.head, *(self.reader.encode(image.prefix) if image else [])]
        self.after_image = image.suffix if image else ""

    def read(self, query: str | ItemError, count: int) -> TokenizedQuery:
        """Return the tokens of a query.

        Args:
            query: The query, or its error.
            count: Number of its documents.

        Raises:
            RequestError: The query fails, and with it all documents.
        """
        try:
            if isinstance(query, ItemError):
                raise query
            return self.tokenize(query)
        except ItemError as error:
            raise RequestError("\n".join([str(error)] * count)) from error

    def tokenize(self, query: str) -> TokenizedQuery:
        """Tokenise a query.

        Raises:
            ItemError: It leaves no room for a document.
        """
        if len(query) > count_read_chars(self.limit):
            raise ItemError("text_too_long", f"the query has {len(query)} characters; shorten it")
        before = self.after_image + self.settings.query_prefix + query
        if self.settings.passage_prefix:
            before += self.settings.passage_prefix
            split = self.reader.splits.find_last(before, 1, len(before) - 1) or 0
            read = TokenizedQuery(self.before_image, self.reader.encode(before[:split]), before[split:])
        else:
            read = TokenizedQuery(self.before_image, [*self.reader.encode(before), *self.pair.middle], "")
        prefix = self.reader.encode(read.prefix.rstrip())
        count = len(read.before_image) + len(read.ids) + len(prefix) + len(self.pair.tail)
        if count >= self.limit:
            raise ItemError(
                "text_too_long",
                f"the query takes {count} of at most {self.limit} tokens and leaves no room for a document; shorten it",
            )
        return read

    def encode(
        self, query: TokenizedQuery, texts: Sequence[str], image_token_counts: Sequence[int], *, truncate: Truncate
    ) -> list[TokenSequence | ItemError]:
        """Tokenise documents.

        Args:
            query: Of all of them.
            texts: Text of each document.
            image_token_counts: Image tokens of each document, which come before the query.
            truncate: Which end of a text is cut if it is too long.

        Returns:
            For each document its sequence, or its error.
        """
        prompts = [Prompt(query.prefix, text, truncate, self.limit) for text in texts]
        encoded: list[TokenSequence | ItemError] = []
        for prompt, body, count in zip(prompts, self.reader.read(prompts), image_token_counts, strict=True):
            if isinstance(body, ItemError):
                encoded.append(body)
                continue
            image = [self.settings.image_token_id or 0] * count
            fixed = [*query.before_image, *image, *query.ids]
            encoded.append(join(fixed, body, self.pair.tail, prompt, self.reader))
        return encoded


def list_token_types(encoded: Sequence[TokenSequence | ItemError]) -> NDArray[np.int64]:
    """Return 0 for each token of a query and 1 for each of a document, in packed rows."""
    sequences = [item for item in encoded if not isinstance(item, ItemError)]
    counts = [(item.text_start, len(item.ids) - item.text_start) for item in sequences]
    return np.repeat(np.arange(2 * len(counts)) % 2, list(chain.from_iterable(counts)))
