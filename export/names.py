"""The names of a public id's Triton models."""

from __future__ import annotations

import re

from export.errors import ExportError

PREPROCESS_TEXT = "preprocess_text"
PREPROCESS_IMAGE = "preprocess_image"
VISION_ENCODER = "vision_encoder"
EMBEDDER = "embedder"
TEXT = "text"
IMAGE = "image"

_PUBLIC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def check_public_id(public_id: str) -> str:
    """Return `public_id` unchanged if a model can be served under that name.

    Raises:
        ExportError: The name is not one or more path components of letters, digits, `.`, `_` and `-`.
    """
    if not _PUBLIC_ID.fullmatch(public_id):
        raise ExportError(f"{public_id!r} cannot be a public id: use letters, digits, '.', '_' and '-', like org/model")
    return public_id


def slug(public_id: str) -> str:
    """Return the prefix of a public id's Triton models.

    >>> slug("sentence-transformers/all-MiniLM-L6-v2")
    'all_minilm_l6_v2'
    """
    return re.sub(r"[^a-z0-9]", "_", public_id.rsplit("/", 1)[-1].lower())


def ensemble_version(fingerprint: str | None) -> int:
    """Return the version number of a model's ensembles: another for another fingerprint, below 2**52.

    Args:
        fingerprint: Of the model, in hexadecimal; None before it is known.
    """
    return int(fingerprint[:13], 16) or 1 if fingerprint else 1


def model_names(public_id: str, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Return the Triton models of a public id: the steps in the order of the request path, then the ensembles."""
    prefix = slug(public_id)
    image_steps = (PREPROCESS_IMAGE, VISION_ENCODER) if IMAGE in modalities else ()
    steps = (PREPROCESS_TEXT, *image_steps, EMBEDDER)
    return tuple(f"{prefix}_{part}" for part in (*steps, *modalities))
