"""The items of a request: their types, their errors, and how they are read from and packed into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
"""Tensor name to rows, without the leading 1 of Triton's shapes."""

BYTES_PER_TOKEN_ID = 4
"""Of the text that token ids are decoded to, roughly."""

MAX_PROMPT_CHARS = 4096
"""A prompt is an instruction of some sentences, and tokenised with every item."""

Choice = TypeVar("Choice", bound=Enum)
ImageErrorCode = Literal["image_invalid", "image_unsupported", "image_too_large", "pdf_invalid"]


class RequestError(Exception):
    """A whole request fails."""


class ExpiredError(Exception):
    """The request's time is over: nobody waits for its result any more."""

    def __init__(self) -> None:
        super().__init__("request timeout expired")


class ItemError(Exception):
    """One item fails; the others of its request do not.

    Attributes:
        code: One of the codes listed in docs/contract.md.
        message: One sentence for the client. It contains no path and repeats no input.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")  # the form of the `errors` tensor
        self.code = code
        self.message = message


class ImageError(ItemError):
    """An image, or a page of a PDF, is refused."""

    code: ImageErrorCode

    def __init__(self, code: ImageErrorCode, message: str) -> None:
        super().__init__(code, message)


class InputType(Enum):
    """What a text is used for; the model was trained with a prompt for each."""

    QUERY = "query"
    PASSAGE = "passage"


class Truncate(Enum):
    """What happens to a text above the token limit: it is refused, or its end or start is cut."""

    NONE = "NONE"
    END = "END"
    START = "START"


class TokenIdPolicy(Enum):
    """Which token ids are accepted: those that survive being decoded and encoded again, or any in the vocabulary."""

    CHECKED = "checked"
    ANY = "any"


@dataclass(frozen=True)
class TextItem:
    """A text, with its input type, its truncation, and what comes before it instead of the input type's prefix."""

    text: str
    input_type: InputType
    truncate: Truncate
    prompt: str | None = None


@dataclass(frozen=True)
class TokensItem:
    """A text that the client has tokenised."""

    ids: Sequence[int]
    input_type: InputType
    truncate: Truncate
    policy: TokenIdPolicy = TokenIdPolicy.CHECKED
    prompt: str | None = None


@dataclass(frozen=True)
class ImageFile:
    """An encoded image, or a page of a PDF.

    Attributes:
        data: The file.
        page: Number of the page, from 1; 0 if the file is an image.
    """

    data: bytes
    page: int = 0


@dataclass(frozen=True)
class ImageItem:
    """An image and the text beside it, or the error of that text."""

    file: ImageFile
    text: str | ItemError


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """The tokens of one item.

    Attributes:
        ids: Token ids that the embedder gets, including special, prefix and image tokens, and padding at the end.
        untruncated_count: Number of tokens before truncation, without padding.
        text_start: Index of the first token of the item's own text; those of a reranker's query come before it.
        padding: Number of tokens of padding.
    """

    ids: list[int]
    untruncated_count: int
    text_start: int = 0
    padding: int = 0


EMPTY_SEQUENCE = TokenSequence([], 0)


def read_text_items(request: Tensors) -> list[TextItem | TokensItem | ItemError]:
    """Read the items of a text request; one that is not UTF-8 fails alone.

    Raises:
        RequestError: `input_type`, `prompt`, `truncate`, `token_id_policy` or the token ids are invalid.
    """
    input_type = read_choice(request, "input_type", InputType.PASSAGE)
    truncate = read_truncate(request)
    policy = read_choice(request, "token_id_policy", TokenIdPolicy.CHECKED)
    prompt = read_prompt(request)
    items: list[TextItem | TokensItem | ItemError] = []
    for data, token_ids in zip(request["text"], read_token_ids(request), strict=True):
        if token_ids:
            items.append(TokensItem(token_ids, input_type, truncate, policy, prompt))
        else:
            text = decode_text(data)
            items.append(text if isinstance(text, ItemError) else TextItem(text, input_type, truncate, prompt))
    return items


def count_text_bytes(request: Tensors) -> int:
    """Return the size of a text request, counting a token id like a short word."""
    texts = sum(map(len, request["text"])) + sum(map(len, request.get("query", ())))
    return texts + BYTES_PER_TOKEN_ID * len(request.get("token_ids", ()))


def read_query(request: Tensors) -> str | ItemError:
    """Return the query of a request to a reranker, or its error, which is that of every item.

    Raises:
        RequestError: There is not exactly one query.
    """
    if len(request["query"]) != 1:
        raise RequestError("parameter_invalid: query must have one entry")
    query = decode_text(request["query"][0])
    return ItemError("text_invalid", "the query must be UTF-8") if isinstance(query, ItemError) else query


def read_image_items(request: Tensors) -> list[ImageItem]:
    """Read the items of an image request; one whose text is not UTF-8 fails alone.

    Raises:
        RequestError: `truncate` is invalid, or there are not as many texts or pages as images.
    """
    files = read_image_files(request)
    texts = request.get("text", np.full(len(files), b"", dtype=np.object_))
    if len(texts) != len(files):
        raise RequestError("parameter_invalid: text must have as many entries as image, or be absent")
    read_truncate(request)
    return [ImageItem(file, decode_text(data)) for file, data in zip(files, texts, strict=True)]


def read_image_files(request: Tensors) -> list[ImageFile]:
    """Return the file of each item; an empty one with a page number is the file of the item before.

    Raises:
        RequestError: There are not as many pages as images, or a negative one.
    """
    images = request["image"]
    pages = request.get("page", np.zeros(len(images), np.int32))
    if len(pages) != len(images) or (pages < 0).any():
        raise RequestError("parameter_invalid: page must have one number from 0 per entry of image, or be absent")
    files: list[ImageFile] = []
    for data, page in zip(images, pages.tolist(), strict=True):
        repeats = page and not data and files
        files.append(ImageFile(files[-1].data if repeats else data, page))
    return files


def read_prompt(request: Tensors) -> str | None:
    """Return the text that comes before each item, or None for that of the input type.

    Raises:
        RequestError: It is not one text in UTF-8, or too long.
    """
    if "prompt" not in request:
        return None
    prompt = decode_text(request["prompt"][0])
    if isinstance(prompt, ItemError) or len(prompt) > MAX_PROMPT_CHARS:
        raise RequestError(f"parameter_invalid: prompt must be UTF-8, and have at most {MAX_PROMPT_CHARS} characters")
    return prompt


def read_truncate(request: Tensors) -> Truncate:
    """Return the request's `truncate`, `NONE` if absent.

    Raises:
        RequestError: It has another value.
    """
    return read_choice(request, "truncate", Truncate.NONE)


def read_choice(request: Tensors, name: str, default: Choice) -> Choice:
    """Return the enumeration member named by a tensor of one string, `default` if the tensor is absent.

    Raises:
        RequestError: The enumeration has no such member.
    """
    if name not in request:
        return default
    try:
        return type(default)(request[name][0].decode())
    except (ValueError, IndexError):
        allowed = ", ".join(choice.value for choice in type(default))
        raise RequestError(f"parameter_invalid: {name} must be one of {allowed}") from None


def read_token_ids(request: Tensors) -> list[list[int]]:
    """Return the token ids of each item, an empty list for an item given as text.

    Raises:
        RequestError: `token_id_counts` does not match `token_ids` or the items.
    """
    count = len(request["text"])
    if "token_ids" not in request and "token_id_counts" not in request:
        return [[]] * count
    counts = request.get("token_id_counts", np.zeros(0, np.int32))
    ids = request.get("token_ids", np.zeros(0, np.int64))
    if len(counts) != count or (counts < 0).any() or counts.sum() != len(ids):
        raise RequestError(
            "parameter_invalid: token_id_counts must have one entry per item and add up to the length of token_ids"
        )
    return [part.tolist() for part in np.split(ids, np.cumsum(counts)[:-1])]


def decode_text(data: bytes) -> str | ItemError:
    """Decode UTF-8; return the error of a text that is not."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ItemError("text_invalid", "text must be UTF-8")


def pack_sequences(encoded: Sequence[TokenSequence | ItemError]) -> dict[str, NDArray[Any]]:
    """Pack token ids into `input_ids` [T], and `sequence_lengths`, counts and `errors` [n].

    A failed item becomes a sequence without tokens.

    Raises:
        RequestError: Every item failed, so there is nothing to embed.
    """
    sequences = [EMPTY_SEQUENCE if isinstance(item, ItemError) else item for item in encoded]
    errors = [str(item) if isinstance(item, ItemError) else "" for item in encoded]
    if not any(sequence.ids for sequence in sequences):
        raise RequestError("\n".join(errors))
    lengths = np.array([len(sequence.ids) for sequence in sequences], dtype=np.int32)
    ids = chain.from_iterable(sequence.ids for sequence in sequences)
    return {
        "input_ids": np.fromiter(ids, dtype=np.int64, count=int(lengths.sum())),
        "sequence_lengths": lengths,
        "token_counts": lengths - np.array([sequence.padding for sequence in sequences], dtype=np.int32),
        "untruncated_token_counts": np.array([each.untruncated_count for each in sequences], dtype=np.int32),
        "errors": np.array([error.encode() for error in errors], dtype=np.object_),
    }
