"""The tokenizer as the preprocessing backend wants it: no truncation, padding only if the model attends to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from export.errors import CheckpointError
from export.sample_texts import SAMPLE_TEXTS
from export.spec import ImageSpec, ModelSpec

MAX_NORMALISED_GROWTH = 8  # Unicode's own normal forms lengthen few characters, and those at most 18 times


def prepare_tokenizer(
    tokenizer: Mapping[str, Any],
    *,
    image_token_id: int | None = None,
    lowercase: bool = False,
    normalizers: Sequence[Mapping[str, Any]] = (),
    all_special: bool = False,
) -> bytes:
    """Return `tokenizer.json` without truncation and padding.

    Args:
        tokenizer: Content of the checkpoint's `tokenizer.json`.
        image_token_id: Id of the image token, which is made special so that a user's text can never produce it.
        lowercase: Whether to lower the text first (`do_lower_case` of sentence-transformers).
        normalizers: What to do with the text next, before the tokenizer's own normalisation.
        all_special: Whether to make every added token special, so that a user's text can never produce one.

    Raises:
        CheckpointError: The tokenizer has no added token with the id `image_token_id`.
    """
    prepared = {**tokenizer, "truncation": None, "padding": None}
    if all_special:
        prepared["added_tokens"] = [{**token, "special": True} for token in tokenizer.get("added_tokens") or []]
    if image_token_id is not None:
        prepared["added_tokens"] = _with_special(tokenizer.get("added_tokens") or [], image_token_id)
    first = [*([{"type": "Lowercase"}] if lowercase else []), *normalizers]
    if first:
        steps = [*first, *([tokenizer["normalizer"]] if tokenizer.get("normalizer") else [])]
        prepared["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return json.dumps(prepared, ensure_ascii=False, separators=(",", ":")).encode()


def surround(tokenizer: bytes, before: Sequence[str], after: Sequence[str]) -> bytes:
    """Return a `tokenizer.json` that puts these tokens before and after every text, and no others.

    Raises:
        CheckpointError: The vocabulary lacks one of them.
    """
    surrounded = load_tokenizer(tokenizer)
    ids = {token: surrounded.token_to_id(token) for token in (*before, *after)}
    for token, token_id in ids.items():
        if token_id is None:
            raise CheckpointError(f"tokenizer.json has no token {token!r:.40}, which surrounds texts")
    surrounded.post_processor = TemplateProcessing(single=[*before, "$A", *after], special_tokens=list(ids.items()))
    content: str = surrounded.to_str()
    return content.encode()


def pad_to(tokenizer: bytes, length: int, token: str) -> bytes:
    """Return a `tokenizer.json` that pads every text on the right.

    Args:
        tokenizer: Content of a `tokenizer.json`.
        length: Tokens of every text, special tokens included.
        token: The token that is added.

    Raises:
        CheckpointError: The vocabulary has no such token.
    """
    padded = load_tokenizer(tokenizer)
    token_id = padded.token_to_id(token)
    if token_id is None:
        raise CheckpointError(f"tokenizer.json has no token {token!r:.40}, which pads texts")
    padded.enable_padding(length=length, pad_id=token_id, pad_token=token)
    content: str = padded.to_str()
    return content.encode()


def read_padded_length(tokenizer: bytes) -> int:
    """Return the number of tokens that a `tokenizer.json` pads every text to, 0 if it pads none."""
    padding = load_tokenizer(tokenizer).padding
    return int(padding["length"] or 0) if padding else 0


def load_unpadded(tokenizer: bytes) -> Tokenizer:
    """Load the content of a `tokenizer.json` without its padding; errors as those of `load_tokenizer`."""
    loaded = load_tokenizer(tokenizer)
    loaded.no_padding()
    return loaded


def load_tokenizer(tokenizer: bytes) -> Tokenizer:
    """Load the content of a `tokenizer.json`.

    Raises:
        CheckpointError: The library cannot load it.
    """
    try:
        return Tokenizer.from_str(tokenizer.decode())
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"tokenizer.json cannot be loaded: {error}") from error


def read_special_tokens(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a tokenizer adds before and after every text."""
    encoding = tokenizer.encode("a")
    first = encoding.special_tokens_mask.index(0)
    last = len(encoding.ids) - encoding.special_tokens_mask[::-1].index(0)
    return tuple(encoding.ids[:first]), tuple(encoding.ids[last:])


def check_token_ids(tokenizer: bytes, vocab_size: int) -> None:
    """Refuse a tokenizer with a token that has no row in the token embedding table.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.
        vocab_size: Rows of the table.

    Raises:
        CheckpointError: The tokenizer cannot be loaded, or a token id is too large.
    """
    loaded = load_tokenizer(tokenizer)
    special = loaded.encode("")  # the ids that its post-processor adds need not be in its vocabulary
    ids = {**loaded.get_vocab(with_added_tokens=True), **dict(zip(special.tokens, special.ids, strict=True))}
    token = max(ids, key=ids.__getitem__, default=None)
    if token is not None and ids[token] >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives {token!r} the id {ids[token]}, but the token embeddings have only {vocab_size} rows"
        )


def check_expansion(tokenizer: bytes) -> None:
    """Check that the tokenizer does not make much of little: a normaliser may replace a letter by a megabyte.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.

    Raises:
        CheckpointError: A sample text becomes implausibly long.
    """
    normalizer = load_tokenizer(tokenizer).normalizer
    for text in SAMPLE_TEXTS if normalizer else ():
        chars = len(normalizer.normalize_str(text))
        if chars > MAX_NORMALISED_GROWTH * len(text):
            raise CheckpointError(f"the normalizer of tokenizer.json makes {chars} characters of {len(text)}")


def check_prefixes(tokenizer: bytes, spec: ModelSpec) -> None:
    """Check that a text has room beside the special tokens and each prefix, and an image beside those of a passage.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.
        spec: Numbers of the model.

    Raises:
        CheckpointError: The longest sequence is too short.
    """
    loaded = load_unpadded(tokenizer)
    for kind, prefix, limit in (
        ("query", spec.query_prefix, spec.max_query_tokens),
        ("passage", spec.passage_prefix, spec.max_passage_tokens),
    ):
        taken = len(loaded.encode(prefix).ids)
        if isinstance(spec.image, ImageSpec) and kind == "passage":
            taken += spec.image.tokens_per_tile
        if taken >= limit:
            raise CheckpointError(f"a {kind} has {taken} tokens before its text, of at most {limit}: nothing would fit")


def survives_round_trip(tokenizer: bytes, texts: Iterable[str]) -> bool:
    """Return whether the token ids of every text, decoded and encoded again, are the same.

    The preprocessing backend tells a model's own token ids from others by that. Texts with unknown tokens are left out.

    Args:
        tokenizer: Content of the `tokenizer.json` to serve.
        texts: Real texts in many scripts.
    """
    loaded = load_unpadded(tokenizer)
    loaded.encode_special_tokens = True
    special = {token_id for token_id, token in loaded.get_added_tokens_decoder().items() if token.special}
    unknown = getattr(loaded.model, "unk_token", None)
    opaque = special if unknown is None else {*special, loaded.token_to_id(unknown)}
    encodings = (loaded.encode(text, add_special_tokens=False).ids for text in texts)
    known = [ids for ids in encodings if not opaque.intersection(ids)]
    decoded = loaded.decode_batch(known, skip_special_tokens=False)
    return all(
        loaded.encode(text, add_special_tokens=False).ids == ids for text, ids in zip(decoded, known, strict=True)
    )


def _with_special(added: list[dict[str, Any]], token_id: int) -> list[dict[str, Any]]:
    if not any(token["id"] == token_id for token in added):
        raise CheckpointError(f"tokenizer.json has no added token of id {token_id}, the image token of config.json")
    return [{**token, "special": True} if token["id"] == token_id else token for token in added]
