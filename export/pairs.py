"""A query and a document as one sequence, as a reranker reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from export.errors import CheckpointError
from export.sample_texts import SAMPLE_TEXTS
from export.spec import ImageSpec, ModelSpec
from export.tokenizer import load_tokenizer

SAMPLE_QUERIES = ("hello", "What is NVIDIA?", "A man is eating food.")
"""Short, so that a document fits beside them in any model."""


@dataclass(frozen=True)
class Pair:
    """The tokens of a query and a document.

    Attributes:
        input_ids: Token ids.
        token_types: For each token, 0 before the document and 1 from its first token on.
    """

    input_ids: Sequence[int]
    token_types: Sequence[int]


def encode_pair(tokenizer: Tokenizer, spec: ModelSpec, query: str, document: str, tiles: int = 0) -> Pair:
    """Tokenise a pair; of a long document only the beginning is kept.

    Args:
        tokenizer: Encodes special tokens within a text as text.
        spec: Numbers of the reranker.
        query: The query, which leaves room for a document.
        document: The document.
        tiles: Tiles of an image that belongs to the document; its tokens come before the query.
    """
    rank = spec.rank
    if rank is None:
        raise ValueError("an embedding model reads no pairs")
    before, ids = spec.query_prefix + query, list(rank.head)
    if isinstance(spec.image, ImageSpec) and tiles:
        ids += tokenizer.encode(spec.image.prefix, add_special_tokens=False).ids
        ids += [spec.image.token_id] * (tiles * spec.image.tokens_per_tile)
        before = spec.image.suffix + before
    if spec.passage_prefix:
        ids += tokenizer.encode(before + spec.passage_prefix + document, add_special_tokens=False).ids
        first = len(ids)
    else:
        ids += [*tokenizer.encode(before, add_special_tokens=False).ids, *rank.middle]
        first = len(ids)
        ids += tokenizer.encode(document, add_special_tokens=False).ids
    ids = [*ids[: spec.max_tokens - len(rank.tail)], *rank.tail]
    return Pair(ids, [0] * first + [1] * (len(ids) - first))


def encode_sample_pairs(tokenizer: bytes, spec: ModelSpec) -> list[Pair]:
    """Tokenise pairs of real texts in many scripts.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.
        spec: Numbers of the reranker.
    """
    loaded = load_tokenizer(tokenizer)
    loaded.encode_special_tokens = True
    return [
        encode_pair(loaded, spec, SAMPLE_QUERIES[index % len(SAMPLE_QUERIES)], document)
        for index, document in enumerate(SAMPLE_TEXTS)
    ]


def check_pairs(tokenizer: bytes, spec: ModelSpec) -> None:
    """Check that a document, and an image if the model takes images, have room beside a short query.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.
        spec: Numbers of the reranker.

    Raises:
        CheckpointError: The longest sequence is too short.
    """
    loaded = load_tokenizer(tokenizer)
    unlimited = replace(spec, max_query_tokens=1 << 20, max_passage_tokens=1 << 20)
    taken = max(len(encode_pair(loaded, unlimited, query, "", tiles=1).input_ids) for query in SAMPLE_QUERIES)
    if taken >= spec.max_tokens:
        raise CheckpointError(f"a short query takes {taken} tokens of at most {spec.max_tokens}: no document would fit")
