"""How closely exported graphs agree with transformers, and how closely they must.

Each architecture has a module here that runs its graphs and transformers' own modules over the same sample inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from export.errors import ValidationError
from export.graphs.builder import IR_VERSION, GraphBuilder
from export.graphs.spelled_out import spell_out
from export.spec import Precision, Target

# No provider of ONNX Runtime runs the graphs for TensorRT: Triton does, once they are engines.
_PROVIDERS: Mapping[Target, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


UNVERIFIED = "unverified on device"
"""What a manifest names as the device if the machine of the export had none for the target."""


Inputs = Mapping[str, NDArray[np.generic]]
RunGraph = Callable[[Path, Target, str, Inputs], NDArray[np.float32]]
"""Runs a written graph, as `run_graph` does."""


@dataclass(frozen=True)
class Agreement:
    """Distance between two sets of embeddings of the same inputs.

    Attributes:
        max_abs_error: Largest difference of any component.
        min_cosine: Lowest cosine similarity of any pair.
        mean_cosine: Mean cosine similarity.
        nearest_kept: Share of the samples whose nearest other sample is the same in both sets.
        samples: Number of pairs.
    """

    max_abs_error: float
    min_cosine: float
    mean_cosine: float
    nearest_kept: float
    samples: int

    def describe(self) -> str:
        """Return the distance in words."""
        return (
            f"largest difference {self.max_abs_error:.1e}, mean cosine {self.mean_cosine:.5f}, lowest"
            f" {self.min_cosine:.5f}, nearest neighbour kept by {self.nearest_kept:.1%}"
        )


@dataclass(frozen=True)
class ScoreAgreement:
    """Distance between two scores of each of the same pairs of query and document.

    Attributes:
        max_abs_error: Largest difference.
        max_abs_score: Largest score, as an absolute value.
        correlation: Of both lists of scores, by Pearson.
        samples: Number of pairs.
    """

    max_abs_error: float
    max_abs_score: float
    correlation: float
    samples: int

    def describe(self) -> str:
        """Return the distance in words."""
        return (
            f"largest difference {self.max_abs_error:.1e} of scores up to {self.max_abs_score:.1f}, correlation"
            f" {self.correlation:.6f}"
        )


@dataclass(frozen=True)
class Tolerance:
    """The error allowed to a precision: fp32 is judged by components, the others by direction."""

    max_abs_error: float = float("inf")
    min_cosine: float = -1.0


TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(max_abs_error=1e-4),
    "fp16": Tolerance(min_cosine=0.999),
    "int8": Tolerance(min_cosine=0.95),
}
SCORE_TOLERANCE = 1e-4
"""Largest difference of a score in fp32, as a part of the largest score if that is above 1."""

MIN_CORRELATIONS: Mapping[Precision, float] = {"fp16": 0.999, "int8": 0.95}
"""Lowest correlation of the scores in other precisions, which change them more than their order."""


LOSSY_MEAN_COSINE, LOSSY_NEAREST_KEPT = 0.995, 0.9
"""An export warns of a precision below either of them."""


@cache
def find_provider(target: Target) -> str | None:
    """Return the name of the execution provider for a target, or None if there is none on this machine."""
    provider = _PROVIDERS.get(target)
    if provider not in onnxruntime.get_available_providers():
        return None
    op = GraphBuilder()
    model = ir.Model(op.build("probe", [op.Neg(op.input("x", ir.DataType.FLOAT, [1]))]), ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a build with CUDA on a machine without a GPU would report an error
    probe = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=[provider])
    return provider if provider in probe.get_providers() else None


def open_graph(path: Path, target: Target) -> onnxruntime.InferenceSession:
    """Load a written graph as a server would, or spelled out for the CPU if this machine lacks the device."""
    provider, options = find_provider(target), onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as in backends/onnxruntime/graph.py
    if provider is not None:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    graph = ir.to_proto(spell_out(ir.load(path))).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_graph(path: Path, target: Target, output: str, inputs: Inputs) -> NDArray[np.float32]:
    """Return one output of a written graph."""
    result: NDArray[np.float32] = open_graph(path, target).run([output], inputs)[0]
    return result


def pack(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.generic]]:
    """Return the token ids of sequences as the inputs of a graph."""
    return {
        "input_ids": np.concatenate([np.asarray(ids, np.int64) for ids in sequences]),
        "sequence_lengths": np.asarray([len(ids) for ids in sequences], np.int32),
    }


def require_comparable(found: NDArray[np.float32], expected: NDArray[np.float32], numbers: str) -> None:
    """Check what a graph returned before it is compared.

    Args:
        found: By the graph.
        expected: By the reference.
        numbers: What both consist of, for the message.

    Raises:
        ValidationError: The shapes differ, or a number is not finite.
    """
    if found.shape != expected.shape:
        raise ValidationError(f"the graph returned shape {found.shape}, the reference {expected.shape}")
    if not np.isfinite(found).all():
        raise ValidationError(f"the graph returned {numbers} that are not finite")


def compare_embeddings(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Agreement:
    """Compare embeddings `(samples, dimensions)` row by row.

    Raises:
        ValidationError: The shapes differ, or a component is not finite.
    """
    require_comparable(found, expected, "components")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / lengths
    return Agreement(
        max_abs_error=float(np.abs(found - expected).max()),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        nearest_kept=float((_find_nearest(found) == _find_nearest(expected)).mean()),
        samples=len(found),
    )


def _find_nearest(embeddings: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return for each row the one with the highest cosine to it, but for itself."""
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: NDArray[np.intp] = cosines.argmax(axis=1)
    return nearest


def require_agreement(agreement: Agreement | ScoreAgreement, precision: Precision) -> None:
    """Refuse graphs that do not compute what the reference computes.

    Raises:
        ValidationError: The agreement is outside the tolerance of the precision.
    """
    if isinstance(agreement, ScoreAgreement):
        _require_scores(agreement, precision)
        return
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


def _require_scores(agreement: ScoreAgreement, precision: Precision) -> None:
    if precision == "fp32":
        allowed = SCORE_TOLERANCE * max(1.0, agreement.max_abs_score)
        agrees = agreement.max_abs_error <= allowed
        expected = f"a difference of at most {allowed:.0e}"
    else:
        agrees = agreement.correlation >= MIN_CORRELATIONS[precision]
        expected = f"a correlation of at least {MIN_CORRELATIONS[precision]}"
    if not agrees:
        raise ValidationError(
            f"the {precision} graph does not agree with the reference over {agreement.samples} samples:"
            f" {agreement.describe()} (needed: {expected})"
        )


def find_loss(agreement: Agreement | ScoreAgreement, precision: Precision) -> str | None:
    """Return a warning if a precision loses much, or None; scores are judged by their correlation alone."""
    if isinstance(agreement, ScoreAgreement):
        return None
    if agreement.mean_cosine >= LOSSY_MEAN_COSINE and agreement.nearest_kept >= LOSSY_NEAREST_KEPT:
        return None
    return (
        f"warning: {precision} changes what this model finds: mean cosine {agreement.mean_cosine:.4f} to the reference"
        f" (expected: {LOSSY_MEAN_COSINE}), nearest neighbour kept by {agreement.nearest_kept:.1%} of the samples"
        f" (expected: {LOSSY_NEAREST_KEPT:.0%}); compare searches before you use it"
    )
