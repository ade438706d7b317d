"""What the text and the image step have in common: a batch of requests in, tensors or an error for each out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import ItemError
from preprocess.tokenization import InputType, Truncate

Tensors = Mapping[str, NDArray[Any]]
"""Tensor name to rows, without the formal leading 1 of Triton's shapes."""


class RequestError(Exception):
    """A request that cannot be answered in any part."""


class Step(Protocol):
    """A preprocessing step."""

    def process(self, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
        """Answer every request of a batch with output tensors, or say why not."""

    def close(self) -> None:
        """Stop what the step has started."""


def read_input_type(request: Tensors) -> InputType:
    """Return the request's `input_type`, passage when absent.

    Raises:
        RequestError: It is none of the two.
    """
    return read_choice(request, "input_type", InputType.PASSAGE)


def read_truncate(request: Tensors) -> Truncate:
    """Return the request's `truncate`, none when absent.

    Raises:
        RequestError: It is none of the three.
    """
    return read_choice(request, "truncate", Truncate.NONE)


Choice = TypeVar("Choice", bound=Enum)


def read_choice(request: Tensors, name: str, default: Choice) -> Choice:
    """Return the member of `default`'s enumeration that a tensor of one string names, `default` when it is absent.

    Raises:
        RequestError: It names none.
    """
    if name not in request:
        return default
    try:
        return type(default)(request[name][0].decode())
    except (ValueError, IndexError):
        allowed = ", ".join(choice.value for choice in type(default))
        raise RequestError(f"parameter_invalid: {name} must be one of {allowed}") from None


def decode_text(data: bytes) -> str:
    """Decode UTF-8.

    Raises:
        ItemError: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ItemError("text_invalid", "text must be UTF-8") from None


def sequence_tensors(encoded: Sequence[list[int] | ItemError]) -> dict[str, NDArray[Any]]:
    """Pack sequences: `input_ids` [T], `sequence_lengths` [n], `token_counts` [n], `errors` [n].

    A failed item is a sequence of no tokens.

    Raises:
        RequestError: All items failed, and there is nothing to embed.
    """
    sequences = [[] if isinstance(item, ItemError) else item for item in encoded]
    errors = [str(item) if isinstance(item, ItemError) else "" for item in encoded]
    if not any(sequences):
        raise RequestError("\n".join(errors))
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    return {
        "input_ids": np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=int(lengths.sum())),
        "sequence_lengths": lengths,
        "token_counts": lengths,
        "errors": np.array([error.encode() for error in errors], dtype=np.object_),
    }
