"""The engine as the gateway sees it."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.engine.golden import Golden, GoldenScore
from gateway.errors import InvalidVectorError
from gateway.types import Deadline, InputType, Item, Task, Truncate

FloatVectors: TypeAlias = npt.NDArray[np.float32]
Counts: TypeAlias = npt.NDArray[np.int32]

READ_CHARS_PER_TOKEN = 64
MIN_READ_CHARS = 65_536
"""Of a text above both limits, the engine reads only what truncation may keep (`docs/contract.md`)."""

DEFAULT_MAX_IMAGE_BYTES = 25 * 1024 * 1024
"""Limit of a model whose export names none."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the engine reports about one model.

    Attributes:
        public_id: The name clients use.
        dimensions: Size of its vectors; 1 for a model that ranks, whose "vectors" are scores.
        max_tokens: Longest sequence in tokens; special, prefix and image tokens, and the query of a ranking, included.
        takes_images: Whether it takes images.
        takes_pdfs: Whether it takes pages of PDFs.
        takes_text_with_images: Whether an image and a text can be one item; dual encoders embed them apart.
        task: What it does with an item.
        precision: Such as `fp32`.
        license: SPDX id or name.
        fingerprint: Of weights, precision and preprocessing, in int8 also of the engine; vectors of equal ones are
            comparable.
        max_tiles: Most tiles of one image, thumbnail included; 0 for text models.
        tokens_per_tile: Image tokens of one tile; 0 for text models.
        padded_tokens: Tokens that every text takes in the model, which attends to padding; 0 for others.
        max_image_bytes: Size limit of one encoded image.
        takes_prompts: Whether a request may bring what comes before its texts.
        checks_token_ids: Whether the engine can tell the model's own token ids from those of another tokenizer.
        manifest: The export's manifest, as in `docs/contract.md`; empty if the model carries none.
        golden: What the readiness probe compares vectors or scores with; None for older exports.
    """

    public_id: str
    dimensions: int
    max_tokens: int
    takes_images: bool
    takes_pdfs: bool = False
    takes_text_with_images: bool = True
    task: Task = "embed"
    precision: str = "fp32"
    license: str = ""
    fingerprint: str = ""
    max_tiles: int = 0
    tokens_per_tile: int = 0
    padded_tokens: int = 0
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    takes_prompts: bool = False
    checks_token_ids: bool = True
    manifest: Mapping[str, Any] = field(default_factory=dict)
    golden: Golden | GoldenScore | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Public id and fingerprint: what distinguishes it from a model that takes its place."""
        return self.public_id, self.fingerprint

    @property
    def max_read_chars(self) -> int:
        """Most characters of a text that the engine reads."""
        return max(READ_CHARS_PER_TOKEN * self.max_tokens, MIN_READ_CHARS)

    @property
    def owner(self) -> str:
        """The first component of the public id."""
        return self.public_id.split("/", 1)[0]

    @property
    def created_s(self) -> int:
        """When it was exported, in Unix seconds; 0 if unknown."""
        created = self.manifest.get("created", 0)
        return int(created) if isinstance(created, int | float) else 0


class Slot:
    """Capacity that a request occupies, returned once its last holder releases it.

    The request itself is the first holder. An inference call that outlives its request is another, so that work which
    cannot be stopped still counts. Without `on_free` the slot occupies nothing.

    Args:
        on_free: Called when the last holder has released the slot.
        on_refund: Called with the tokens that turn out not to be used.
    """

    __slots__ = ("_holders", "_on_free", "_on_refund")

    def __init__(
        self, on_free: Callable[[], None] = lambda: None, on_refund: Callable[[int], None] = lambda tokens: None
    ) -> None:
        self._on_free = on_free
        self._on_refund = on_refund
        self._holders = 1

    def __enter__(self) -> Self:
        """Stand for the first holder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the first holder."""
        self.release()

    def refund(self, tokens: int) -> None:
        """Give back tokens that the request was estimated to have and did not."""
        self._on_refund(tokens)

    def hold(self) -> None:
        """Add a holder."""
        self._holders += 1

    def release(self) -> None:
        """Remove a holder."""
        self._holders -= 1
        if not self._holders:
            self._on_free()

    @classmethod
    def shared(cls, slots: Sequence["Slot"]) -> "Slot":
        """Return a slot for work on behalf of several; until it is free, it holds each of them."""
        for slot in slots:
            slot.hold()

        def release_all() -> None:
            for slot in slots:
                slot.release()

        return cls(release_all)


Enter: TypeAlias = Callable[[int], Awaitable[Slot]]


async def enter_freely(cost: int) -> Slot:
    """Return a slot that occupies nothing, at once."""
    return Slot()


@dataclass(frozen=True, slots=True)
class EmbedBatch:
    """The items of one request, or of several that agree in everything else.

    Attributes:
        model: One that `Engine.models` returned.
        items: Of any kind the model takes; images as files, never as URLs.
        item_tokens: Estimated tokens of each item, as `chunking.estimate_tokens` has them.
        input_type: Whether the texts are queries or passages; `passage` where they are ranked.
        truncate: Which end of an over-long text is cut; `NONE` refuses it.
        enter: Waits for the turn of an inference request, of which it is told the estimated tokens. Its slot is held
            while the engine works on it, which may be after its client has disconnected.
        chunk_tokens: Most estimated tokens of an inference request with several items; None for the engine's own limit.
        check_token_ids: Whether to refuse token ids that are not the model's own.
        deadline: After which nobody waits for the result; None if that is not known.
        query: What the items are ranked by; None for a model that embeds.
        prompt: What comes before each text, instead of the prefix of the input type; None for that.
    """

    model: ServedModel
    items: Sequence[Item]
    item_tokens: Sequence[int]
    input_type: InputType
    truncate: Truncate
    enter: Enter
    chunk_tokens: int | None = None
    check_token_ids: bool = True
    deadline: Deadline | None = None
    query: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why one item has no vector or score.

    Attributes:
        code: One of the codes in `docs/contract.md`, or empty for what the contract does not know.
        message: Safe to show to the client, unless the code is empty.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The vectors, or scores, of a batch of n items.

    Attributes:
        embeddings: `(n, dimensions)` float32 rows of unit length, or `(n, 1)` scores; NaN for an item that failed.
        token_counts: `(n,)` tokens that reached the model; special, prefix and image tokens included.
        untruncated_token_counts: `(n,)` tokens before truncation, equal to `token_counts` where nothing was cut.
        image_token_counts: `(n,)` image tokens among them.
        tile_counts: `(n,)` tiles, thumbnails included.
        failures: The items that failed, by index.
    """

    embeddings: FloatVectors
    token_counts: Counts
    untruncated_token_counts: Counts
    image_token_counts: Counts
    tile_counts: Counts
    failures: Mapping[int, ItemFailure]

    def rows(self, start: int, end: int) -> "EmbedResult":
        """Return the result of the items from `start` up to `end`; vectors and counts are views."""
        return EmbedResult(
            self.embeddings[start:end],
            self.token_counts[start:end],
            self.untruncated_token_counts[start:end],
            self.image_token_counts[start:end],
            self.tile_counts[start:end],
            {index - start: failure for index, failure in self.failures.items() if start <= index < end},
        )

    def check_finite(self) -> None:
        """Check that the vectors or scores of all items that did not fail are made of finite numbers.

        Raises:
            InvalidVectorError: A component is NaN or infinite.
        """
        vectors = np.delete(self.embeddings, list(self.failures), axis=0) if self.failures else self.embeddings
        if not math.isfinite(np.vdot(vectors, vectors)):  # NaN and infinity survive a sum
            raise InvalidVectorError("vector" if vectors.shape[1] > 1 else "score")


@dataclass(frozen=True, slots=True)
class TokenizeResult:
    """What preprocessing makes of n items, without inference.

    Attributes:
        token_ids: Of each item, cut to the model's limit; empty for one that failed.
        token_counts: `(n,)` lengths of these; special, prefix and image tokens included.
        untruncated_token_counts: `(n,)` tokens before they were cut.
        image_token_counts: `(n,)` image tokens among `token_counts`.
        tile_counts: `(n,)` tiles, thumbnails included.
        page_counts: `(n,)` pages of the PDFs of which the items are pages; 0 for the others.
        failures: The items that failed, by index.
    """

    token_ids: Sequence[Sequence[int]]
    token_counts: Counts
    untruncated_token_counts: Counts
    image_token_counts: Counts
    tile_counts: Counts
    page_counts: Counts
    failures: Mapping[int, ItemFailure]


class Engine(Protocol):
    """Turns items into vectors. Implemented by `TritonEngine`, and by a fake in the tests."""

    async def start(self) -> None:
        """Open connections in the running event loop, without waiting for the other side."""

    async def close(self) -> None:
        """Close what `start` opened."""

    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        """Return the served models by public id.

        Args:
            refresh: Ask the engine instead of using the cached list.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        ...

    def unavailable_models(self) -> frozenset[str]:
        """Return the models that could not be loaded, as of the last list: public ids or, where unknown, slugs."""
        ...

    async def embed(self, batch: EmbedBatch) -> EmbedResult:
        """Embed or rank every item, or report which ones failed. Has no timeout: the caller cancels it.

        Raises:
            GatewayError: The batch failed as a whole.
        """
        ...

    async def tokenize(self, batch: EmbedBatch) -> TokenizeResult:
        """Tokenise every item, and tile its image, without inference.

        Raises:
            GatewayError: The batch failed as a whole.
        """
        ...
