"""One embeddings request from parsed items to values ready for a dialect to write down."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from gateway.admission import Admission
from gateway.catalogue import Catalogue
from gateway.deadline import Deadline
from gateway.embeddings import EmbeddingsRequest, EmbeddingsResult, Usage
from gateway.engine import EmbedBatch, Embedded, Engine, ItemFailure
from gateway.engine.chunking import estimate_tokens
from gateway.errors import (
    EngineFaultError,
    EngineUnavailableError,
    GatewayError,
    InvalidRequestError,
    TooLargeError,
)
from gateway.fetching import ByteBudget, ImageFetcher
from gateway.history import AnswerHistory
from gateway.items import ImageUrl, Item, PicturedItem
from gateway.postprocess import Int8Scale, cut_dimensions, encode, quantize
from gateway.suitability import check_dimensions, check_pictures, resolve_input_type

E = TypeVar("E", bound=GatewayError)


class Embedder:
    """Resolves the model, gets pictures, asks the engine, and post-processes."""

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        history: AnswerHistory,
        fetcher: ImageFetcher,
        admission: Admission,
        int8_scale: Int8Scale,
        max_fetched_bytes: int,
    ) -> None:
        """Keeps what it works with.

        Args:
            engine: started before the first request.
            catalogue: of the same engine.
            history: learns how the engine does.
            fetcher: for pictures named by address.
            admission: decides how much is done at a time.
            int8_scale: how int8 and uint8 are scaled.
            max_fetched_bytes: of all pictures fetched for one request.
        """
        self._engine = engine
        self._catalogue = catalogue
        self._history = history
        self._fetcher = fetcher
        self._admission = admission
        self._int8_scale = int8_scale
        self._max_fetched_bytes = max_fetched_bytes

    async def embed(self, request: EmbeddingsRequest, deadline: Deadline) -> EmbeddingsResult:
        """Answers a request.

        Raises:
            GatewayError: of many kinds; an item's failure names the item.
        """
        found = await self._catalogue.find(request.model)
        input_type = resolve_input_type(request.input_type, found.input_type)
        check_dimensions(request.dimensions, found.model)
        check_pictures(request.items, found.model, input_type)
        cost = sum(estimate_tokens(item, found.model) for item in request.items)
        gate = self._admission.gate_of(request.items)
        gate.check_room(cost)
        started_s = time.perf_counter()
        items = await self._fetch_images(request.items, deadline)
        fetched_s = time.perf_counter()
        with await gate.enter(cost) as place:
            admitted_s = time.perf_counter()
            embedded = await self._infer(EmbedBatch(found.model, items, input_type, request.truncate, place))
        inferred_s = time.perf_counter()
        vectors = cut_dimensions(embedded.embeddings, request.dimensions or found.model.dimensions)
        values = encode(quantize(vectors, request.embedding_type, self._int8_scale), request.encoding_format)
        stage_s = {
            "fetch": fetched_s - started_s,
            "admission": admitted_s - fetched_s,
            "inference": inferred_s - admitted_s,
            "postprocess": time.perf_counter() - inferred_s,
        }
        return EmbeddingsResult(found.model, values, count_usage(items, embedded), stage_s)

    async def _infer(self, batch: EmbedBatch) -> Embedded:
        """Asks the engine, and remembers how that went.

        Raises:
            GatewayError: the engine or an item failed.
        """
        try:
            embedded = await self._engine.embed(batch)
        except EngineUnavailableError:
            self._history.note_failure(batch.model)
            raise
        check_embedded(embedded)
        self._history.note_success(batch.model)
        return embedded

    async def _fetch_images(self, items: Sequence[Item], deadline: Deadline) -> Sequence[Item]:
        """The items with every address replaced by the picture there."""
        remote = [(index, item) for index, item in enumerate(items) if is_remote(item)]
        if not remote:
            return items
        budget = ByteBudget(self._max_fetched_bytes)
        fetches = [asyncio.ensure_future(self._fetch_image(index, item, deadline, budget)) for index, item in remote]
        try:
            fetched = await asyncio.gather(*fetches)
        finally:
            for fetch in fetches:
                fetch.cancel()
        complete = list(items)
        for (index, _), item in zip(remote, fetched, strict=True):
            complete[index] = item
        return complete

    async def _fetch_image(self, index: int, item: Item, deadline: Deadline, budget: ByteBudget) -> Item:
        if not isinstance(item, PicturedItem) or not isinstance(item.image, ImageUrl):
            return item
        try:
            return replace(item, image=await self._fetcher.fetch_image(item.image.url, deadline, budget))
        except (InvalidRequestError, TooLargeError) as error:
            raise describe_item(type(error), index, error.message) from error


def is_remote(item: Item) -> bool:
    """Whether the item's picture has yet to be fetched."""
    return isinstance(item, PicturedItem) and isinstance(item.image, ImageUrl)


def check_embedded(embedded: Embedded) -> None:
    """Lets only whole answers through.

    Raises:
        InvalidRequestError: the first item that failed.
        TooLargeError: the first item that failed, if its picture is too large.
        InvalidVectorError: a vector holds something else than finite numbers.
    """
    if embedded.failures:
        index, failure = next(iter(embedded.failures.items()))
        raise_item_error(index, failure)
    embedded.check_finite()


def describe_item(kind: type[E], index: int, message: str) -> E:
    """An error about one item, from a message that does not know which."""
    return kind(f"input[{index}]: {message}", param=f"input[{index}]")


def raise_item_error(index: int, failure: ItemFailure) -> None:
    """Raises the domain error of a failed item.

    Raises:
        TooLargeError: a picture above a limit.
        InvalidRequestError: everything else a client can cause.
        EngineFaultError: a code the contract does not know.
    """
    match failure.code:
        case "image_too_large":
            raise describe_item(TooLargeError, index, failure.message)
        case "":
            raise EngineFaultError("the engine failed")
        case _:
            raise describe_item(InvalidRequestError, index, failure.message)


def count_usage(items: Sequence[Item], embedded: Embedded) -> Usage:
    """Sums the engine's counts."""
    image_tokens = sum(embedded.image_token_counts.tolist())
    pictures = (item.image for item in items if isinstance(item, PicturedItem))
    return Usage(
        text_tokens=sum(embedded.token_counts.tolist()) - image_tokens,
        image_tokens=image_tokens,
        tiles=sum(embedded.tile_counts.tolist()),
        image_bytes=sum(len(picture) for picture in pictures if isinstance(picture, bytes)),
    )
