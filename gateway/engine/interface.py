"""The engine as the gateway sees it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.admission import Place
from gateway.errors import InvalidVectorError
from gateway.items import InputType, Item, Truncate

FloatVectors: TypeAlias = npt.NDArray[np.float32]
Counts: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the engine says of one model.

    Attributes:
        public_id: the name clients use.
        dimensions: size of its vectors.
        max_tokens: longest sequence in tokens; special, prefix and image tokens included.
        takes_images: whether pictures can be embedded, alone or with text.
        precision: such as `fp32`.
        license: SPDX id or name.
        fingerprint: of weights, precision and preprocessing; vectors of equal fingerprints are comparable.
        max_tiles: most tiles of one picture, thumbnail included; 0 without pictures.
        tokens_per_tile: image tokens of one tile; 0 without pictures.
        manifest: the export's manifest, as in `docs/contract.md`; empty if the model carries none.
    """

    public_id: str
    dimensions: int
    max_tokens: int
    takes_images: bool
    precision: str = "fp32"
    license: str = ""
    fingerprint: str = ""
    max_tiles: int = 0
    tokens_per_tile: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The first component of the public id."""
        return self.public_id.split("/", 1)[0]

    @property
    def created_s(self) -> int:
        """When it was exported, in Unix seconds; 0 if unknown."""
        created = self.manifest.get("created", 0)
        return int(created) if isinstance(created, int | float) else 0


@dataclass(frozen=True, slots=True)
class EmbedBatch:
    """The items of one client request, or of several that are alike in all else.

    Attributes:
        model: one that `Engine.models` returned.
        items: n items of any kind the model takes; pictures as files, never as addresses.
        input_type: what the texts are.
        truncate: which end of too long a text goes, or `NONE` to refuse it.
        place: held for as long as the engine works on the batch, which may be after its client has gone.
    """

    model: ServedModel
    items: Sequence[Item]
    input_type: InputType
    truncate: Truncate
    place: Place


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why one item has no vector.

    Attributes:
        code: one of the codes in `docs/contract.md`.
        message: for the client's eyes.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a batch.

    Attributes:
        embeddings: `(n, dimensions)` float32, each row of length 1; NaN for an item that failed.
        token_counts: `(n,)` tokens that reached the model; special, prefix and image tokens included.
        image_token_counts: `(n,)` of these, image tokens.
        tile_counts: `(n,)` tiles, thumbnails included.
        failures: the items that failed, by their index.
        chunk_count: inference requests it took; other batches may have had a part in them.
    """

    embeddings: FloatVectors
    token_counts: Counts
    image_token_counts: Counts
    tile_counts: Counts
    failures: Mapping[int, ItemFailure]
    chunk_count: int = 1

    def cut(self, start: int, end: int) -> "Embedded":
        """The items from `start` up to `end`; vectors and counts are views."""
        return Embedded(
            self.embeddings[start:end],
            self.token_counts[start:end],
            self.image_token_counts[start:end],
            self.tile_counts[start:end],
            {index - start: failure for index, failure in self.failures.items() if start <= index < end},
            self.chunk_count,
        )

    def check_finite(self) -> None:
        """Lets only real vectors through; called once no item has failed.

        Raises:
            InvalidVectorError: a component is NaN or infinite.
        """
        if not math.isfinite(np.vdot(self.embeddings, self.embeddings)):  # NaN and infinity come through sums
            raise InvalidVectorError


class Engine(Protocol):
    """Turns items into vectors. Triton is one; the tests have another."""

    async def start(self) -> None:
        """Opens what it needs, in the running event loop. Does not wait for the other side to be there."""

    async def close(self) -> None:
        """Lets go of what `start` opened."""

    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        """The served models by public id.

        Args:
            refresh: ask anew instead of answering from memory.

        Raises:
            EngineUnavailableError: nobody there who could say.
        """
        ...

    async def embed(self, batch: EmbedBatch) -> Embedded:
        """Embeds every item, or says which failed. Nobody but its caller ends the wait, by cancelling it.

        Raises:
            GatewayError: the batch as a whole failed.
        """
        ...
