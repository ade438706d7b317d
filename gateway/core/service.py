"""The embedding service: model lookup, image fetching, admission, inference, post-processing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from gateway.core.admission import Admission
from gateway.core.catalogue import Catalogue
from gateway.core.health import HealthTracker
from gateway.core.postprocess import write_vectors
from gateway.engine import EmbedBatch, EmbedResult, Engine, ItemFailure, ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.errors import (
    EngineFaultError,
    EngineUnavailableError,
    GatewayError,
    InvalidItemError,
    InvalidRequestError,
    TooLargeError,
)
from gateway.fetch import ByteBudget, ImageFetcher
from gateway.settings import Settings
from gateway.types import Deadline, EmbeddingsRequest, ImageUrl, InputType, Item, ItemWithImage, TokenLimit

IMAGE_QUERY = (
    'input_type="query" is not supported with images; the VLM model processes images as passages only. '
    'Use input_type="passage" or omit input_type.'
)
"""The embedding NIM's message."""

MIN_DIMENSIONS = 128
MIN_DIMENSIONS_OF_SMALL_MODELS = 32
SMALL_MODEL_DIMENSIONS = 2048
"""Models with fewer dimensions may be cut further."""

E = TypeVar("E", bound=GatewayError)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request consumed.

    Attributes:
        text_tokens: Special and prefix tokens included.
        image_tokens: Of all tiles.
        tiles: Thumbnails included.
        image_bytes: Size of the encoded images.
    """

    text_tokens: int
    image_tokens: int
    tiles: int
    image_bytes: int

    @property
    def total_tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens


@dataclass(frozen=True, slots=True)
class EmbeddingsResult:
    """What the client gets, independent of the dialect.

    Attributes:
        model: The model that embedded the items.
        outputs: For each requested format the vectors, one per item, as `postprocess.encode` returns them.
        usage: Exact counts.
        stage_s: Seconds spent in each stage, by its name.
    """

    model: ServedModel
    outputs: list[list[Any]]
    usage: Usage
    stage_s: dict[str, float]

    @property
    def vectors(self) -> list[Any]:
        """The vectors in the first format, which is the only one in most dialects."""
        return self.outputs[0]


class EmbeddingService:
    """Answers embeddings requests.

    Args:
        engine: Started before the first request.
        catalogue: Of the same engine.
        tracker: Records how the engine does.
        fetcher: For images given by URL.
        admission: Limits how much is in flight.
        settings: How vectors are scaled, and how much may be fetched.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        tracker: HealthTracker,
        fetcher: ImageFetcher,
        admission: Admission,
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._tracker = tracker
        self._fetcher = fetcher
        self._admission = admission
        self._settings = settings

    async def embed(self, request: EmbeddingsRequest, deadline: Deadline) -> EmbeddingsResult:
        """Embed the items of a request.

        Raises:
            GatewayError: Of many kinds; the failure of an item names the item.
        """
        resolved = await self._catalogue.resolve(request.model)
        model = resolved.model
        input_type = resolve_input_type(request.input_type, resolved.input_type)
        for vector_format in request.formats:
            check_dimensions(vector_format.dimensions, model)
        check_token_limit(request.token_limit, model)
        check_modality(request.items, model, input_type)
        item_tokens = [estimate_tokens(item, model) for item in request.items]
        cost = sum(item_tokens)
        gate = self._admission.gate_of(request.items)
        gate.check_room(cost)
        started_s = time.perf_counter()
        items = await self._fetch_images(request.items, deadline)
        check_image_sizes(items, model)
        fetched_s = time.perf_counter()
        with await gate.enter(cost) as slot:
            admitted_s = time.perf_counter()
            result = await self._infer(EmbedBatch(model, items, item_tokens, input_type, request.truncate, slot))
        inferred_s = time.perf_counter()
        int8_scale = self._settings.int8_scale
        outputs = [write_vectors(result.embeddings, each, int8_scale) for each in request.formats]
        stage_s = {
            "fetch": fetched_s - started_s,
            "admission": admitted_s - fetched_s,
            "inference": inferred_s - admitted_s,
            "postprocess": time.perf_counter() - inferred_s,
        }
        return EmbeddingsResult(model, outputs, count_usage(items, result), stage_s)

    async def _infer(self, batch: EmbedBatch) -> EmbedResult:
        """Call the engine, and record how that went.

        Raises:
            GatewayError: The engine or an item failed.
        """
        try:
            result = await self._engine.embed(batch)
        except EngineUnavailableError:
            self._tracker.record_failure(batch.model)
            raise
        if result.failures:
            index, failure = next(iter(result.failures.items()))
            raise item_error(index, failure)
        result.check_finite()
        self._tracker.record_success(batch.model)
        return result

    async def _fetch_images(self, items: Sequence[Item], deadline: Deadline) -> Sequence[Item]:
        """Return the items with every image URL replaced by the image."""
        urls = {
            index: item.image.url
            for index, item in enumerate(items)
            if isinstance(item, ItemWithImage) and isinstance(item.image, ImageUrl)
        }
        if not urls:
            return items
        budget = ByteBudget(self._settings.max_fetched_bytes)
        fetches = [asyncio.ensure_future(self._fetch_image(*entry, deadline, budget)) for entry in urls.items()]
        try:
            images = dict(zip(urls, await asyncio.gather(*fetches), strict=True))
        finally:
            for fetch in fetches:
                fetch.cancel()
        return [
            replace(item, image=images[index]) if isinstance(item, ItemWithImage) and index in images else item
            for index, item in enumerate(items)
        ]

    async def _fetch_image(self, index: int, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        try:
            return await self._fetcher.fetch_image(url, deadline, budget)
        except (InvalidRequestError, TooLargeError) as error:
            raise error_of_item(type(error), index, error.message) from error


def resolve_input_type(field: InputType | None, suffix: InputType | None) -> InputType:
    """Return the input type set by the request's field or by the model id's suffix, by default `passage`.

    Raises:
        InvalidRequestError: Field and suffix contradict each other.
    """
    if field and suffix and field != suffix:
        raise InvalidRequestError(
            f"input_type must be '{suffix}' with a model id that ends in '-{suffix}'", param="input_type"
        )
    return field or suffix or "passage"


def check_dimensions(dimensions: int | None, model: ServedModel) -> None:
    """Check that the model's vectors can be cut to the requested size.

    Raises:
        InvalidRequestError: Too small or too large.
    """
    if dimensions is None or dimensions == model.dimensions:
        return
    smallest = MIN_DIMENSIONS_OF_SMALL_MODELS if model.dimensions < SMALL_MODEL_DIMENSIONS else MIN_DIMENSIONS
    if not smallest <= dimensions <= model.dimensions:
        allowed = f"from {smallest} to {model.dimensions}" if smallest < model.dimensions else f"{model.dimensions}"
        raise InvalidRequestError(f"dimensions must be {allowed}", param="dimensions")


def check_token_limit(limit: TokenLimit | None, model: ServedModel) -> None:
    """Check that a client's limit leaves the model's own in force: the engine truncates at no other.

    Raises:
        InvalidRequestError: The limit is lower.
    """
    if limit is not None and limit.max_tokens < model.max_tokens:
        raise InvalidRequestError(
            f"{limit.field} must be at least {model.max_tokens}, the model's limit: lower limits are not supported",
            param=limit.field,
        )


def check_modality(items: Sequence[Item], model: ServedModel, input_type: InputType) -> None:
    """Check that the model takes the items' kinds.

    Raises:
        InvalidItemError: An image for a text model.
        InvalidRequestError: An image as a query.
    """
    for index, item in enumerate(items):
        if isinstance(item, ItemWithImage):
            if not model.takes_images:
                raise InvalidItemError(index, "has an image, and the model takes text only")
            if input_type == "query":
                raise InvalidRequestError(IMAGE_QUERY, param="input_type")


def check_image_sizes(items: Sequence[Item], model: ServedModel) -> None:
    """Check the images against the model's own limit, which may be below the gateway's.

    Raises:
        TooLargeError: An image is above it.
    """
    limit = model.max_image_bytes
    for index, item in enumerate(items):
        if isinstance(item, ItemWithImage) and isinstance(item.image, bytes) and len(item.image) > limit:
            raise error_of_item(TooLargeError, index, f"the image is above the limit of {limit} bytes")


def error_of_item(kind: type[E], index: int, message: str) -> E:
    """Return an error about one item."""
    return kind(f"input[{index}]: {message}", param=f"input[{index}]")


def item_error(index: int, failure: ItemFailure) -> GatewayError:
    """Return the error of an item that the engine could not embed."""
    match failure.code:
        case "image_too_large":
            return error_of_item(TooLargeError, index, failure.message)
        case "":
            return EngineFaultError(f"item {index} failed without a known code: {failure.message!r}")
        case _:
            return error_of_item(InvalidRequestError, index, failure.message)


def count_usage(items: Sequence[Item], result: EmbedResult) -> Usage:
    """Return the sums of the engine's counts, and of the images' sizes."""
    image_tokens = sum(result.image_token_counts.tolist())
    images = (item.image for item in items if isinstance(item, ItemWithImage))
    return Usage(
        text_tokens=sum(result.token_counts.tolist()) - image_tokens,
        image_tokens=image_tokens,
        tiles=sum(result.tile_counts.tolist()),
        image_bytes=sum(len(image) for image in images if isinstance(image, bytes)),
    )
