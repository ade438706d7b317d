"""Text to token ids: prompts, limits and truncation. No user text can become a special token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from tokenizers import Tokenizer

from preprocess.items import (
    EMPTY_SEQUENCE,
    InputType,
    ItemError,
    TextItem,
    TokenIdPolicy,
    TokenSequence,
    TokensItem,
    Truncate,
)
from preprocess.prompts import Prompt, PromptReader
from preprocess.round_trip import RoundTrip
from preprocess.settings import ImageSettings, TextSettings

# Messages of the error `token_id_invalid`.
OUTSIDE_VOCABULARY = "token ids must be in the vocabulary and not the image token"
FOREIGN_IDS = (
    "these token ids do not come from this model's tokenizer; send text instead "
    "(LangChain: check_embedding_ctx_length=False)"
)
UNVERIFIABLE_IDS = (
    "this model's tokenizer cannot tell its own token ids from others; send text instead "
    "(the server accepts them with GATEWAY_TOKEN_IDS=any)"
)

MAX_KNOWN_PREFIXES = 16

READ_IDS_PER_TOKEN = 2
"""Of more token ids than this for each token of the limit, only those at the end that truncation keeps are read."""


@dataclass(frozen=True, slots=True)
class TokenBody:
    """What is read of an item given as token ids.

    Attributes:
        ids: Without the special tokens around them.
        has_prefix: Whether the item begins with the prefix of its input type, or needs none.
        unread: How many further ids the item has.
    """

    ids: list[int]
    has_prefix: bool
    unread: int


@dataclass(frozen=True, slots=True)
class Padding:
    """What texts are padded with, on the right, for a model that attends to padding.

    Attributes:
        token_id: Of the token that is added.
        length: Tokens of every text, special tokens included.
    """

    token_id: int
    length: int


class TextTokenizer:
    """Turns each item into the token ids of one sequence.

    Args:
        tokenizer_path: A `tokenizer.json` as the tokenizers library writes it.
        settings: Prompts and limits of the model.
    """

    def __init__(self, tokenizer_path: Path, settings: TextSettings) -> None:
        self.settings = settings
        self.tokenizer, self.padding = load_tokenizer(tokenizer_path)
        self.head, self.tail = special_tokens(self.tokenizer)
        self.reader = PromptReader(self.tokenizer)
        self.encode_prefix = lru_cache(MAX_KNOWN_PREFIXES)(lambda prefix: self.reader.encode(prefix.rstrip()))
        self.round_trip = RoundTrip(self.tokenizer)

    def encode(self, items: Sequence[TextItem | TokensItem]) -> list[TokenSequence | ItemError]:
        """Tokenise items together.

        Returns:
            For each item its sequence, or its error.
        """
        encoded: list[TokenSequence | ItemError] = [EMPTY_SEQUENCE] * len(items)
        given = {index: item for index, item in enumerate(items) if isinstance(item, TokensItem)}
        read = self.read_token_ids(given) if given else {}
        prompts: dict[int, Prompt] = {}
        unread: dict[int, int] = {}
        for index, item in enumerate(items):
            if isinstance(item, TextItem):
                prompts[index] = self.build_prompt(item, item.text)
                continue
            tokens = read[index]
            if isinstance(tokens, ItemError):
                encoded[index] = tokens
            elif tokens.has_prefix:
                encoded[index] = self.fit(tokens.ids, item, lambda: 0, tokens.unread)
            else:
                unread[index] = tokens.unread
                text = self.tokenizer.decode(tokens.ids, skip_special_tokens=False)
                prompts[index] = self.build_prompt(item, text)
        for (index, prompt), body in zip(prompts.items(), self.reader.read(list(prompts.values())), strict=True):
            if isinstance(body, ItemError):
                encoded[index] = body
                continue
            count_prefix = partial(self.reader.count_prefix, prompt)
            encoded[index] = self.fit(body, items[index], count_prefix, unread.get(index, 0))
        return encoded

    def build_prompt(self, item: TextItem | TokensItem, text: str) -> Prompt:
        """Return the prompt of a text, with the options of its item."""
        return Prompt(self.prefix(item), text, item.truncate, self.limit(item.input_type))

    def read_token_ids(self, items: Mapping[int, TokensItem]) -> dict[int, TokenBody | ItemError]:
        """Return the body of each item, or its error.

        Args:
            items: Items given as token ids, by any key.
        """
        bodies: dict[int, TokenBody | ItemError] = {}
        checked: dict[int, list[int]] = {}
        for key, item in items.items():
            try:
                body = self.body_of(item)
            except ItemError as error:
                bodies[key] = error
                continue
            bodies[key] = body
            if item.policy is TokenIdPolicy.CHECKED:
                checked[key] = body.ids
        for key, survives in zip(checked, self.round_trip.survives(list(checked.values())), strict=True):
            if not survives:
                bodies[key] = ItemError("token_id_invalid", FOREIGN_IDS)
        return bodies

    def body_of(self, item: TokensItem) -> TokenBody:
        """Return the body of a sequence given as token ids, with or without special tokens around them.

        Raises:
            ItemError: An id is outside the vocabulary or the image token, or the policy allows no token ids.
        """
        checked = item.policy is TokenIdPolicy.CHECKED
        if checked and not self.settings.token_ids_round_trip:
            raise ItemError("token_id_invalid", UNVERIFIABLE_IDS)
        ids = list(item.ids)
        if self.settings.image_token_id in ids:
            raise ItemError("token_id_invalid", OUTSIDE_VOCABULARY)
        if min(ids) < 0 or max(ids) >= self.settings.vocab_size:
            raise ItemError("token_id_invalid", FOREIGN_IDS if checked else OUTSIDE_VOCABULARY)
        while self.padding and len(ids) > 1 and ids[-1] == self.padding.token_id:
            ids.pop()
        if self.head and ids[: len(self.head)] == self.head:
            ids = ids[len(self.head) :]
        if self.tail and ids[-len(self.tail) :] == self.tail:
            ids = ids[: -len(self.tail)]
        prefix_ids = self.encode_prefix(self.prefix(item))
        has_prefix = ids[: len(prefix_ids)] == prefix_ids
        unread = max(0, len(ids) - READ_IDS_PER_TOKEN * self.limit(item.input_type))
        if unread:
            ids = ids[unread:] if item.truncate is Truncate.START else ids[:-unread]
        return TokenBody(ids, has_prefix, unread)

    def fit(
        self, body: list[int], item: TextItem | TokensItem, count_prefix: Callable[[], int], unread: int = 0
    ) -> TokenSequence | ItemError:
        """Add the special tokens to a body, truncating it as the item asks.

        Args:
            body: Token ids of prefix and text.
            item: Its input type selects the limit.
            count_prefix: Returns how many tokens of `body` are the prefix, which is never cut. Called only if needed.
            unread: Tokens of the item that are not in `body`, as truncation cuts them.
        """
        limit = self.limit(item.input_type)
        fitted = len(self.head) + len(body) + len(self.tail)
        count = fitted + unread
        if count > limit:
            if item.truncate is Truncate.NONE:
                return too_long_error(count, limit)
            if fitted <= limit:
                return ItemError("token_id_invalid", FOREIGN_IDS)
            if item.prompt and len(self.head) + count_prefix() + len(self.tail) >= limit:
                return ItemError("text_too_long", f"the prompt alone has more tokens than the limit of {limit} leaves")
            body = cut(body, fitted - limit, item.truncate, count_prefix)
        return self.pad(TokenSequence([*self.head, *body, *self.tail], count))

    def pad(self, sequence: TokenSequence) -> TokenSequence:
        """Add the padding that the model attends to, if it does."""
        missing = self.padding.length - len(sequence.ids) if self.padding else 0
        if self.padding is None or missing <= 0:
            return sequence
        ids = [*sequence.ids, *[self.padding.token_id] * missing]
        return TokenSequence(ids, sequence.untruncated_count, padding=missing)

    def limit(self, input_type: InputType) -> int:
        """Return the token limit of an input type."""
        query = input_type is InputType.QUERY
        return self.settings.max_query_tokens if query else self.settings.max_passage_tokens

    def prefix(self, item: TextItem | TokensItem) -> str:
        """Return what comes before an item: its own prompt, or the prefix of its input type."""
        if item.prompt is not None:
            return item.prompt
        return self.settings.query_prefix if item.input_type is InputType.QUERY else self.settings.passage_prefix


class ImagePrompter:
    """Turns an image's token count and its text into the token ids of one sequence."""

    def __init__(self, tokenizer: TextTokenizer, image: ImageSettings) -> None:
        self.text = tokenizer
        self.suffix = image.suffix
        prefix = tokenizer.settings.passage_prefix + image.prefix
        self.before = [*tokenizer.head, *tokenizer.tokenizer.encode(prefix, add_special_tokens=False).ids]

    def encode(
        self, texts: Sequence[str], image_token_counts: Sequence[int], truncate: Truncate
    ) -> list[TokenSequence | ItemError]:
        """Tokenise the text beside each image and put its image tokens, which are never cut, before it."""
        limit = self.text.settings.max_passage_tokens
        prompts = [Prompt(self.suffix, text, truncate, limit) for text in texts]
        return [
            after if isinstance(after, ItemError) else self.assemble(prompt, after, count)
            for prompt, after, count in zip(prompts, self.text.reader.read(prompts), image_token_counts, strict=True)
        ]

    def assemble(self, prompt: Prompt, body: list[int], image_token_count: int) -> TokenSequence | ItemError:
        """Return one sequence; its text is cut if truncation is on and cutting it is enough."""
        image_token_id = self.text.settings.image_token_id
        assert image_token_id is not None  # noqa: S101 - exports write both or neither
        fixed = [*self.before, *[image_token_id] * image_token_count]
        return join(fixed, body, self.text.tail, prompt, self.text.reader)


def load_tokenizer(path: Path) -> tuple[Tokenizer, Padding | None]:
    """Load a tokenizer such that a user's "[CLS]" or "<IMG_CONTEXT>" is text, not a special token.

    Returns:
        The tokenizer, which neither cuts nor pads, and the padding that its file asks for.
    """
    tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    padding = read_padding(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer, padding


def read_padding(tokenizer: Tokenizer) -> Padding | None:
    """Return the padding to a fixed length that a `tokenizer.json` asks for, None if it asks for none."""
    padding = tokenizer.padding
    return Padding(padding["pad_id"], padding["length"]) if padding and padding["length"] else None


def special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after every text."""
    encoding = tokenizer.encode("a")
    first = encoding.special_tokens_mask.index(0)
    last = len(encoding.ids) - encoding.special_tokens_mask[::-1].index(0)
    return encoding.ids[:first], encoding.ids[last:]


def join(
    fixed: list[int], body: list[int], tail: list[int], prompt: Prompt, reader: PromptReader
) -> TokenSequence | ItemError:
    """Return a sequence of which only the text is cut, if truncation is on and cutting it is enough.

    Args:
        fixed: Token ids before those of the prompt.
        body: Token ids of the prompt.
        tail: Token ids after it.
        prompt: The text and its prefix, of which the prefix is never cut.
        reader: What has read the prompt.
    """
    total, limit = len(fixed) + len(body) + len(tail), prompt.max_tokens
    if total > limit:
        kept = reader.count_prefix(prompt)
        if prompt.truncate is Truncate.NONE or total - limit > len(body) - kept:
            return too_long_error(total, limit)
        body = cut(body, total - limit, prompt.truncate, lambda: kept)
    return TokenSequence([*fixed, *body, *tail], total, len(fixed))


def cut(body: list[int], excess: int, truncate: Truncate, count_prefix: Callable[[], int]) -> list[int]:
    """Drop `excess` tokens from the end of a body, or from its start after the prefix."""
    if truncate is Truncate.END:
        return body[:-excess]
    kept = count_prefix()
    return [*body[:kept], *body[kept + excess :]]


def too_long_error(count: int, limit: int) -> ItemError:
    """Return the error of a sequence above the token limit."""
    return ItemError("text_too_long", f"{count} tokens exceed the limit of {limit}; truncate END or START cuts them")
