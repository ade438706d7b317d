"""What the service returns, independent of the dialect."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.engine import EmbedResult, ServedModel, TokenizeResult
from gateway.engine.interface import FloatVectors
from gateway.errors import EngineFaultError, GatewayError
from gateway.types import ItemWithImage, Place, RequestItem


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request consumed.

    Attributes:
        text_tokens: Special and prefix tokens included.
        image_tokens: Of all tiles.
        tiles: Thumbnails included.
        image_bytes: Size of the encoded images and PDFs.
    """

    text_tokens: int = 0
    image_tokens: int = 0
    tiles: int = 0
    image_bytes: int = 0

    @property
    def total_tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens


@dataclass(frozen=True, slots=True)
class Truncation:
    """What was cut from an item.

    Attributes:
        index: Position of the item in the request.
        tokens: How many the item had.
        kept: How many of them reached the model.
    """

    index: int
    tokens: int
    kept: int


@dataclass(frozen=True, slots=True)
class Run:
    """What the stages that all tasks share make of a request.

    Attributes:
        vectors: A row for each item that is left: its vector, or its score alone.
        usage: Exact counts.
        stage_s: Seconds spent in each of these stages; empty if all items had failed before.
        truncations: The items that were cut.
    """

    vectors: FloatVectors
    usage: Usage = field(default_factory=Usage)
    stage_s: dict[str, float] = field(default_factory=dict)
    truncations: Sequence[Truncation] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """What the results of all tasks have in common.

    Attributes:
        model: The model that did it.
        usage: Exact counts.
        stage_s: Seconds spent in each stage, by its name; empty if all items had failed before.
        truncations: The items that were cut.
        errors: Of the items that failed, by index; empty unless the request isolates errors.
    """

    model: ServedModel
    usage: Usage = field(default_factory=Usage)
    stage_s: dict[str, float] = field(default_factory=dict)
    truncations: Sequence[Truncation] = ()
    errors: Mapping[int, GatewayError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsResult(InferenceResult):
    """The embeddings of a request.

    Attributes:
        outputs: For each requested format the vectors, as `postprocess.encode` returns them; None for an item that
            failed.
        places: What each vector stands for; None: each stands for an item of the client's input, in its order.
    """

    outputs: list[list[Any]]
    places: Sequence[Place] | None = None

    @property
    def vectors(self) -> list[Any]:
        """The vectors in the first format, which is the only one in most dialects."""
        return self.outputs[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingResult(InferenceResult):
    """The scores of a request.

    Attributes:
        scores: `(n,)` float32, in the order of the client's input: the model's own, of any range; NaN for an item that
            failed.
    """

    scores: FloatVectors


@dataclass(frozen=True, slots=True)
class TokenizedRequest:
    """What preprocessing makes of a request.

    Attributes:
        model: The model whose tokenizer it is.
        places: What the rows of `result` stand for.
        result: Tokens and tiles; None if every item failed.
        errors: Of the items that failed, by index.
    """

    model: ServedModel
    places: Sequence[Place]
    result: TokenizeResult | None
    errors: Mapping[int, GatewayError]


class ItemErrors(dict[int, GatewayError]):
    """The errors of a request's items, by index.

    Args:
        isolate: Whether to collect them; otherwise the first one is raised.
    """

    def __init__(self, isolate: bool) -> None:
        super().__init__()
        self._isolate = isolate

    def add(self, index: int, error: GatewayError) -> None:
        """Note an item's error.

        Raises:
            GatewayError: The request does not isolate errors, or the engine is at fault.
        """
        if not self._isolate or isinstance(error, EngineFaultError):
            raise error
        self[index] = error


def count_usage(items: Iterable[RequestItem], result: EmbedResult) -> Usage:
    """Return the sums of the engine's counts, and of the files' sizes; a PDF counts with its first page."""
    image_tokens = sum(result.image_token_counts.tolist())
    files = (item.file for item in items if isinstance(item, ItemWithImage) and getattr(item, "page", 0) <= 1)
    return Usage(
        text_tokens=sum(result.token_counts.tolist()) - image_tokens,
        image_tokens=image_tokens,
        tiles=sum(result.tile_counts.tolist()),
        image_bytes=sum(len(file) for file in files if isinstance(file, bytes)),
    )


def find_truncations(indices: Iterable[int], result: EmbedResult | TokenizeResult) -> Sequence[Truncation]:
    """Return what was cut from the items at these positions of the request."""
    kept, tokens = result.token_counts, result.untruncated_token_counts
    if kept is tokens or kept.tobytes() == tokens.tobytes():
        return ()
    counts = zip(indices, tokens.tolist(), kept.tolist(), strict=True)
    return [Truncation(index, before, after) for index, before, after in counts if after < before]
