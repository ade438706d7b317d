"""The text ensemble's first step: texts or token ids to packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import ItemError
from preprocess.settings import TextSettings
from preprocess.step import RequestError, Tensors, decode_text, read_input_type, read_truncate, sequence_tensors
from preprocess.tokenization import TextItem, TextTokenizer, TokensItem


class TextStep:
    """Tokenises the items of all requests of a batch together."""

    def __init__(self, version_dir: Path, settings: TextSettings) -> None:
        """Load the tokenizer that stands in `version_dir`."""
        self.tokenizer = TextTokenizer(version_dir / "tokenizer.json", settings)
        self.image_embeds_dim = settings.image_embeds_dim

    def process(self, requests: Sequence[Tensors]) -> list[Tensors | RequestError]:
        """Answer every request of a batch with packed sequences, or say why not."""
        read = [read_items(request) for request in requests]
        flat = [item for items in read if not isinstance(items, RequestError) for item in items]
        encoded = iter(self.encode(flat))
        return [
            items if isinstance(items, RequestError) else self.pack(list(islice(encoded, len(items)))) for items in read
        ]

    def encode(self, items: Sequence[TextItem | TokensItem | ItemError]) -> list[list[int] | ItemError]:
        """Tokenise what could be read; pass on what could not."""
        encoded = iter(self.tokenizer.encode([item for item in items if not isinstance(item, ItemError)]))
        return [item if isinstance(item, ItemError) else next(encoded) for item in items]

    def pack(self, encoded: list[list[int] | ItemError]) -> Tensors | RequestError:
        """Make one request's tensors."""
        try:
            tensors = sequence_tensors(encoded)
        except RequestError as error:
            return error
        if self.image_embeds_dim:
            tensors |= unread_image_row(len(encoded), self.image_embeds_dim)
        return tensors

    def close(self) -> None:
        """Nothing runs beside the step."""


def read_items(request: Tensors) -> list[TextItem | TokensItem | ItemError] | RequestError:
    """Read a request's items; one that is not UTF-8 fails alone."""
    try:
        input_type, truncate = read_input_type(request), read_truncate(request)
        ids = read_token_ids(request)
    except RequestError as error:
        return error
    items: list[TextItem | TokensItem | ItemError] = []
    for data, token_ids in zip(request["text"], ids, strict=True):
        try:
            items.append(
                TokensItem(token_ids, input_type, truncate)
                if token_ids
                else TextItem(decode_text(data), input_type, truncate)
            )
        except ItemError as error:
            items.append(error)
    return items


def read_token_ids(request: Tensors) -> list[list[int]]:
    """Return the ids of each item, none for an item that is a text.

    Raises:
        RequestError: The counts do not fit the ids or the items.
    """
    count = len(request["text"])
    if "token_ids" not in request and "token_id_counts" not in request:
        return [[]] * count
    counts = request.get("token_id_counts", np.zeros(0, np.int32))
    ids = request.get("token_ids", np.zeros(0, np.int64))
    if len(counts) != count or (counts < 0).any() or counts.sum() != len(ids):
        raise RequestError("parameter_invalid: token_id_counts must have an entry an item and add up to token_ids")
    return [part.tolist() for part in np.split(ids, np.cumsum(counts)[:-1])]


def unread_image_row(count: int, width: int) -> dict[str, NDArray[Any]]:
    """Make the row that keeps a ragged tensor from being empty: NaN, for no token ever takes it."""
    image_rows = np.zeros(count, dtype=np.int32)
    image_rows[0] = 1
    return {"image_embeds": np.full((1, width), np.nan, dtype=np.float32), "image_rows": image_rows}
