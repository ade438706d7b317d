"""The names of a public id's Triton models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from export.errors import ExportError
from export.spec import Modality, Task

TEXT = "text"
IMAGE = "image"
RANK = "rank"
RANK_IMAGE = "rank_image"
PREPROCESS_TEXT = "preprocess_text"
PREPROCESS_IMAGE = "preprocess_image"
PREPROCESS_RANK = "preprocess_rank"
PREPROCESS_RANK_IMAGE = "preprocess_rank_image"
VISION_ENCODER = "vision_encoder"
EMBEDDER = "embedder"
RERANKER = "reranker"

ENSEMBLES: Mapping[Task, Mapping[Modality, str]] = {
    "embed": {"text": TEXT, "image": IMAGE},
    "rank": {"text": RANK, "image": RANK_IMAGE},
}
PREPROCESSING: Mapping[str, str] = {
    TEXT: PREPROCESS_TEXT,
    IMAGE: PREPROCESS_IMAGE,
    RANK: PREPROCESS_RANK,
    RANK_IMAGE: PREPROCESS_RANK_IMAGE,
}
"""The first step of each ensemble."""
HEADS: Mapping[Task, str] = {"embed": EMBEDDER, "rank": RERANKER}
"""The last step of each ensemble."""

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


def steps(ensemble: str) -> tuple[str, ...]:
    """Return the steps of an ensemble, in the order of the request path."""
    task: Task = "rank" if ensemble in ENSEMBLES["rank"].values() else "embed"
    encoder = () if ensemble == ENSEMBLES[task]["text"] else (VISION_ENCODER,)
    return (PREPROCESSING[ensemble], *encoder, HEADS[task])


def model_names(public_id: str, modalities: tuple[Modality, ...], task: Task = "embed") -> tuple[str, ...]:
    """Return the Triton models of a public id: the steps in the order of the request path, then the ensembles."""
    ensembles = [ENSEMBLES[task][modality] for modality in modalities]
    inner = dict.fromkeys(step for ensemble in ensembles for step in steps(ensemble)[:-1])
    return tuple(f"{slug(public_id)}_{part}" for part in (*inner, HEADS[task], *ensembles))


def possible_model_names(public_id: str) -> tuple[str, ...]:
    """Return the names of all Triton models that a public id may have, whatever its task, ensembles last."""
    names = [name for task in get_args(Task) for name in model_names(public_id, get_args(Modality), task)]
    ensembles = {f"{slug(public_id)}_{part}" for part in PREPROCESSING}
    return tuple(dict.fromkeys(sorted(names, key=ensembles.__contains__)))
