"""Text to token ids: prompts, limits and truncation. No user text can become a special token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

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


class TextTokenizer:
    """Turns each item into the token ids of one sequence.

    Args:
        tokenizer_path: A `tokenizer.json` as the tokenizers library writes it.
        settings: Prompts and limits of the model.
    """

    def __init__(self, tokenizer_path: Path, settings: TextSettings) -> None:
        self.settings = settings
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # A user's "[CLS]" or "<IMG_CONTEXT>" is text, not a special token.
        self.tokenizer.encode_special_tokens = True
        self.head, self.tail = special_tokens(self.tokenizer)
        self.prefix_ids: dict[InputType, list[int]] = {
            each: self.tokenizer.encode(self.prefix(each).rstrip(), add_special_tokens=False).ids for each in InputType
        }
        self.round_trip = RoundTrip(self.tokenizer)

    def encode(self, items: Sequence[TextItem | TokensItem]) -> list[TokenSequence | ItemError]:
        """Tokenise items together.

        Returns:
            For each item its sequence, or its error.
        """
        encoded: list[TokenSequence | ItemError] = [EMPTY_SEQUENCE] * len(items)
        given = {index: item for index, item in enumerate(items) if isinstance(item, TokensItem)}
        bodies = self.read_bodies(given) if given else {}
        prompts: dict[int, str] = {}
        for index, item in enumerate(items):
            if isinstance(item, TextItem):
                prompts[index] = self.prefix(item.input_type) + item.text
                continue
            body = bodies[index]
            if isinstance(body, ItemError):
                encoded[index] = body
            elif self.has_prefix(body, item.input_type):
                encoded[index] = self.fit(body, item, lambda: 0)
            else:
                text = self.tokenizer.decode(body, skip_special_tokens=False)
                prompts[index] = self.prefix(item.input_type) + text
        for index, encoding in zip(prompts, self.tokenizer.encode_batch_fast(list(prompts.values())), strict=True):
            body = self.without_special(encoding.ids)
            encoded[index] = self.fit(body, items[index], self.prefix_counter(items[index], prompts[index]))
        return encoded

    def read_bodies(self, items: Mapping[int, TokensItem]) -> dict[int, list[int] | ItemError]:
        """Return the token ids of each item without the special tokens around them, or its error.

        Args:
            items: Items given as token ids, by any key.
        """
        bodies: dict[int, list[int] | ItemError] = {}
        checked: dict[int, list[int]] = {}
        for key, item in items.items():
            try:
                body = self.body_of(item)
            except ItemError as error:
                bodies[key] = error
                continue
            bodies[key] = body
            if item.policy is TokenIdPolicy.CHECKED:
                checked[key] = body
        for key, survives in zip(checked, self.round_trip.survives(list(checked.values())), strict=True):
            if not survives:
                bodies[key] = ItemError("token_id_invalid", FOREIGN_IDS)
        return bodies

    def body_of(self, item: TokensItem) -> list[int]:
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
        if self.head and ids[: len(self.head)] == self.head:
            ids = ids[len(self.head) :]
        if self.tail and ids[-len(self.tail) :] == self.tail:
            ids = ids[: -len(self.tail)]
        return ids

    def has_prefix(self, body: list[int], input_type: InputType) -> bool:
        """Return whether a body begins with the prefix of its input type, or needs none."""
        prefix_ids = self.prefix_ids[input_type]
        return body[: len(prefix_ids)] == prefix_ids

    def fit(
        self, body: list[int], item: TextItem | TokensItem, count_prefix: Callable[[], int]
    ) -> TokenSequence | ItemError:
        """Add the special tokens to a body, truncating it as the item asks.

        Args:
            body: Token ids of prefix and text.
            item: Its input type selects the limit.
            count_prefix: Returns how many tokens of `body` are the prefix, which is never cut. Called only if needed.
        """
        query = item.input_type is InputType.QUERY
        limit = self.settings.max_query_tokens if query else self.settings.max_passage_tokens
        count = len(self.head) + len(body) + len(self.tail)
        excess = count - limit
        if excess > 0:
            if item.truncate is Truncate.NONE:
                return too_long_error(count, limit)
            body = cut(body, excess, item.truncate, count_prefix)
        return TokenSequence([*self.head, *body, *self.tail], count)

    def prefix(self, input_type: InputType) -> str:
        """Return the prompt prefix of an input type."""
        return self.settings.query_prefix if input_type is InputType.QUERY else self.settings.passage_prefix

    def prefix_counter(self, item: TextItem | TokensItem, prompt: str) -> Callable[[], int]:
        """Return a function that counts the prefix tokens of a prompt."""
        return lambda: count_tokens_within(self.tokenizer, prompt, len(self.prefix(item.input_type).rstrip()))

    def without_special(self, ids: list[int]) -> list[int]:
        """Remove the special tokens that the tokenizer has added."""
        return ids[len(self.head) : len(ids) - len(self.tail)]


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
        afters = self.text.tokenizer.encode_batch_fast([self.suffix + text for text in texts], add_special_tokens=False)
        return [
            self.assemble(text, after, count, truncate)
            for text, after, count in zip(texts, afters, image_token_counts, strict=True)
        ]

    def assemble(
        self, text: str, after: Encoding, image_token_count: int, truncate: Truncate
    ) -> TokenSequence | ItemError:
        """Return one sequence; its text is cut if truncation is on and cutting it is enough."""
        limit = self.text.settings.max_passage_tokens
        image_token_id = self.text.settings.image_token_id
        assert image_token_id is not None  # noqa: S101 - exports write both or neither
        body: list[int] = after.ids
        fixed = [*self.before, *[image_token_id] * image_token_count]
        total = len(fixed) + len(body) + len(self.text.tail)
        if total > limit:
            suffix = self.suffix.rstrip()
            kept = count_tokens_within(self.text.tokenizer, self.suffix + text, len(suffix), special=False)
            if truncate is Truncate.NONE or total - limit > len(body) - kept:
                return too_long_error(total, limit)
            body = cut(body, total - limit, truncate, lambda: kept)
        return TokenSequence([*fixed, *body, *self.text.tail], total)


def special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after every text."""
    encoding = tokenizer.encode("a")
    first = encoding.special_tokens_mask.index(0)
    last = len(encoding.ids) - encoding.special_tokens_mask[::-1].index(0)
    return encoding.ids[:first], encoding.ids[last:]


def count_tokens_within(tokenizer: Tokenizer, text: str, end: int, special: bool = True) -> int:
    """Count the tokens, other than special ones, that end within the first `end` characters of a text."""
    encoding = tokenizer.encode(text, add_special_tokens=special)
    spans = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    return sum(1 for (_, stop), is_special in spans if not is_special and stop <= end) if end else 0


def cut(body: list[int], excess: int, truncate: Truncate, count_prefix: Callable[[], int]) -> list[int]:
    """Drop `excess` tokens from the end of a body, or from its start after the prefix."""
    if truncate is Truncate.END:
        return body[:-excess]
    kept = count_prefix()
    return [*body[:kept], *body[kept + excess :]]


def too_long_error(count: int, limit: int) -> ItemError:
    """Return the error of a sequence above the token limit."""
    return ItemError("text_too_long", f"{count} tokens exceed the limit of {limit}; truncate END or START cuts them")
