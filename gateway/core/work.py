"""A request on its way to the engine: what is left of its items, and what each vector will stand for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.core.admission import Ticket
from gateway.core.postprocess import normalise
from gateway.core.results import ItemErrors
from gateway.engine import ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import FloatVectors
from gateway.errors import GatewayError
from gateway.types import Client, Deadline, DocumentItem, EmbeddingsRequest, ImageItem, InputType, Place, RequestItem


@dataclass(slots=True)
class Effort:
    """What a request has cost so far.

    Attributes:
        ticket: Of the request, once it waits for the engine.
        admissible_tokens: Estimated tokens of all that the engine is asked to embed.
    """

    ticket: Ticket | None = None
    admissible_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Estimated tokens of what has reached the engine."""
        return self.admissible_tokens - self.ticket.cost_left if self.ticket else 0


@dataclass(slots=True)
class Work:
    """The items of a request that have not failed.

    Attributes:
        request: What the client asks for.
        client: Who asks.
        deadline: Of the request.
        model: That it names.
        input_type: Of its texts.
        errors: Of the items that failed, by their index in the client's input.
        items: What is left to embed, by position.
        places: What the positions stand for; None: the position is the index in the client's input.
        tokens: Estimated, by position.
        has_files: Whether there were images or PDFs among the items.
    """

    request: EmbeddingsRequest
    client: Client
    deadline: Deadline
    model: ServedModel
    input_type: InputType
    errors: ItemErrors
    items: dict[int, RequestItem]
    places: Sequence[Place] | None
    tokens: dict[int, int]
    has_files: bool = False

    def index_of(self, position: int) -> int:
        """Return the index, in the client's input, of the item to which a position belongs."""
        return position if self.places is None else self.places[position].index

    def place_of(self, position: int) -> Place:
        """Return what a position stands for."""
        return Place(position) if self.places is None else self.places[position]

    def add(self, position: int, item: RequestItem) -> None:
        """Add an item."""
        self.items[position] = item
        self.tokens[position] = estimate_tokens(item, self.model)

    def fail(self, position: int, error: GatewayError) -> None:
        """Note the error of an item.

        Raises:
            GatewayError: The request does not isolate errors, or the engine is at fault.
        """
        self.errors.add(self.index_of(position), error)

    def drop_failed(self) -> None:
        """Drop all that is left of the items that failed."""
        if self.errors:
            self.items = {
                position: item for position, item in self.items.items() if self.index_of(position) not in self.errors
            }

    def total_tokens(self) -> int:
        """Return the estimated tokens of what is left."""
        return sum(map(self.tokens.__getitem__, self.items))

    def open_documents(self, page_counts: Mapping[int, int]) -> None:
        """Replace every PDF by its pages, which gives every item a new position.

        Args:
            page_counts: Pages of the PDFs, all of which have been fetched, by position.
        """
        places: list[Place] = []
        items: list[RequestItem] = []
        for position, item in self.items.items():
            place = self.place_of(position)
            if isinstance(item, DocumentItem):
                pages = range(1, page_counts[position] + 1)
                items.extend(ImageItem(item.file, page) for page in pages)
                places.extend(Place(place.index, place.part, page) for page in pages)
            else:
                items.append(item)
                places.append(place)
        self.items, self.tokens, self.places = {}, {}, places
        for position, item in enumerate(items):
            self.add(position, item)


def average_by_item(vectors: FloatVectors, places: Sequence[Place]) -> tuple[FloatVectors, list[Place]]:
    """Return one vector per item: the mean of those of its parts and pages, of unit length again.

    Args:
        vectors: `(n, d)` of unit length.
        places: What they stand for, sorted by index; at least one.

    Returns:
        `(items, d)` float32, and what each row stands for.
    """
    indices, starts = np.unique([place.index for place in places], return_index=True)
    means = normalise(np.add.reduceat(vectors, starts, axis=0, dtype=np.float64))
    return means, [Place(index) for index in indices.tolist()]


def fill_gaps(
    outputs: Sequence[Sequence[Any]], places: Sequence[Place], failed: Iterable[int]
) -> tuple[list[list[Any]], list[Place]]:
    """Put a None where an item has no vector.

    Args:
        outputs: For each format the vectors.
        places: What the vectors stand for, sorted by index.
        failed: Indices of the items without vectors.

    Returns:
        The same, sorted by index, with an entry for each of these items.
    """
    rows = [(place, [vectors[row] for vectors in outputs]) for row, place in enumerate(places)]
    rows.extend((Place(index), [None] * len(outputs)) for index in failed)
    rows.sort(key=lambda row: row[0].index)  # stable: the vectors of an item keep their order
    return [[vectors[number] for _, vectors in rows] for number in range(len(outputs))], [place for place, _ in rows]
