"""How closely exported graphs agree with the reference, and how closely they must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import ValidationError
from export.spec import Precision


@dataclass(frozen=True)
class Agreement:
    """The distance of two sets of embeddings of the same inputs."""

    max_abs_error: float  # of any component
    min_cosine: float  # of any pair
    mean_cosine: float
    samples: int


@dataclass(frozen=True)
class Tolerance:
    """What a precision may cost. fp32 is judged by its components, the others by direction."""

    max_abs_error: float = float("inf")
    min_cosine: float = -1.0


TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(max_abs_error=1e-4),
    "fp16": Tolerance(min_cosine=0.999),
    "int8": Tolerance(min_cosine=0.95),
}


def compare_embeddings(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Agreement:
    """Compare embeddings `(samples, dimensions)` row by row.

    Raises:
        ValidationError: the shapes differ, or a number is not finite.
    """
    if found.shape != expected.shape:
        raise ValidationError(f"the graph answers with shape {found.shape}, the reference with {expected.shape}")
    if not np.isfinite(found).all():
        raise ValidationError("the graph answers with numbers that are not finite")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / lengths
    return Agreement(
        max_abs_error=float(np.abs(found - expected).max()),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        samples=len(found),
    )


def require_agreement(agreement: Agreement, precision: Precision) -> None:
    """Refuse graphs that compute something else than the reference.

    Raises:
        ValidationError: the agreement is outside of the precision's tolerance.
    """
    tolerance = TOLERANCES[precision]
    if agreement.max_abs_error > tolerance.max_abs_error:
        raise ValidationError(
            f"the {precision} graphs differ from the reference by {agreement.max_abs_error:.2e}"
            f" (allowed: {tolerance.max_abs_error:.0e}) over {agreement.samples} samples"
        )
    if agreement.min_cosine < tolerance.min_cosine:
        raise ValidationError(
            f"the {precision} graphs have a cosine of {agreement.min_cosine:.4f} to the reference"
            f" (allowed: {tolerance.min_cosine}) over {agreement.samples} samples"
        )
