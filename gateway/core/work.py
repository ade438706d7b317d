"""A request on its way to the engine: what is left of its items, and what each vector will stand for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.core.admission import Ticket, WorkKind
from gateway.core.checks import check_image_pixels, check_request_pixels
from gateway.core.image_size import SLOW_PIXELS, ImageSize, read_image_size
from gateway.core.postprocess import normalise
from gateway.core.results import ItemErrors
from gateway.engine import ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import FloatVectors
from gateway.errors import GatewayError, TooLargeError
from gateway.types import (
    Client,
    Deadline,
    DocumentItem,
    ImageItem,
    InferenceRequest,
    InputType,
    ItemWithImage,
    Place,
    RequestItem,
)

DECODED_PIXELS_PER_TOKEN = 8192
"""What decoding costs, as tokens: the largest WebP, whose decoding takes about 8 s, as much as nine pages."""


@dataclass(slots=True)
class Effort:
    """What a request has cost so far.

    Attributes:
        ticket: Of the request, once it waits for the engine.
    """

    ticket: Ticket | None = None

    @property
    def tokens(self) -> int:
        """Estimated tokens of what has reached the engine."""
        return self.ticket.entered if self.ticket else 0


@dataclass(slots=True)
class Work:
    """The items of a request that have not failed.

    Attributes:
        request: What the client asks for.
        client: Who asks.
        deadline: Of the request.
        model: That it names.
        errors: Of the items that failed, by their index in the client's input.
        places: What the positions stand for; None: the position is the index in the client's input.
        input_type: Of its texts; `passage` where they are ranked.
        prompt: What comes before each of them, instead of the prefix of the input type; None for that.
        prompt_tokens: Estimated; they count for each item.
        query: What the items are ranked by; None if they are embedded.
        query_tokens: Estimated; they count for each item, which the model reads together with the query.
        items: What is left to embed or rank, by position.
        tokens: Estimated, by position; with what decoding costs, for an image whose header could be read.
        image_sizes: Of these images, by position.
        has_files: Whether there were images or PDFs among the items.
    """

    request: InferenceRequest
    client: Client
    deadline: Deadline
    model: ServedModel
    errors: ItemErrors
    places: Sequence[Place] | None
    input_type: InputType = "passage"
    prompt: str | None = None
    prompt_tokens: int = 0
    query: str | None = None
    query_tokens: int = 0
    items: dict[int, RequestItem] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    image_sizes: dict[int, ImageSize] = field(default_factory=dict)
    has_files: bool = False

    def index_of(self, position: int) -> int:
        """Return the index, in the client's input, of the item to which a position belongs."""
        return position if self.places is None else self.places[position].index

    def place_of(self, position: int) -> Place:
        """Return what a position stands for."""
        return Place(position) if self.places is None else self.places[position]

    def add(self, position: int, item: RequestItem, size: ImageSize | None = None) -> None:
        """Add an item, and the size of its image if that is known."""
        self.items[position] = item
        self.tokens[position] = estimate_tokens(item, self.model) + self.query_tokens + self.prompt_tokens
        if size is not None:
            self.image_sizes[position] = size
            self.tokens[position] += size.decode_pixels // DECODED_PIXELS_PER_TOKEN

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

    def kind(self) -> WorkKind:
        """Return the kind of work that this is; how long a page of a PDF takes is not known before."""
        if not self.has_files:
            return "text"
        for position, item in self.items.items():
            size = self.image_sizes.get(position)
            if size is not None and size.decode_pixels > SLOW_PIXELS:
                return "slow_image"
            if isinstance(item, DocumentItem) or (isinstance(item, ImageItem) and item.page):
                return "slow_image"
        return "image"

    def measure_images(self, max_image_pixels: int, max_request_pixels: int) -> None:
        """Read the sizes of the images that have arrived, and check them.

        Args:
            max_image_pixels: Limit of one image.
            max_request_pixels: Limit of all of them together.

        Raises:
            GatewayError: All of them together are too large; or one is, and the request does not isolate errors.
        """
        for position, item in self.items.items():
            if position in self.image_sizes or not isinstance(item, ItemWithImage) or not isinstance(item.file, bytes):
                continue
            size = read_image_size(item.file)
            if size is None:
                continue
            self.add(position, item, size)
            try:
                check_image_pixels(self.index_of(position), size, max_image_pixels)
            except TooLargeError as error:
                self.fail(position, error)
        self.drop_failed()
        pixels = sum(size.pixels for position, size in self.image_sizes.items() if position in self.items)
        check_request_pixels(pixels, max_request_pixels)

    def open_documents(self, page_counts: Mapping[int, int]) -> None:
        """Replace every PDF by its pages, which gives every item a new position.

        Args:
            page_counts: Pages of the PDFs, all of which have been fetched, by position.
        """
        places: list[Place] = []
        items: list[RequestItem] = []
        sizes: dict[int, ImageSize] = {}
        for position, item in self.items.items():
            place = self.place_of(position)
            if isinstance(item, DocumentItem):
                pages = range(1, page_counts[position] + 1)
                items.extend(ImageItem(item.file, page) for page in pages)
                places.extend(Place(place.index, place.part, page) for page in pages)
            else:
                if position in self.image_sizes:
                    sizes[len(items)] = self.image_sizes[position]
                items.append(item)
                places.append(place)
        self.items, self.tokens, self.image_sizes, self.places = {}, {}, {}, places
        for position, item in enumerate(items):
            self.add(position, item, sizes.get(position))


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
