"""The embedding service: model lookup, image fetching, admission, inference, post-processing."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gateway.core.admission import Admission
from gateway.core.catalogue import Catalogue
from gateway.core.checks import (
    check_dimensions,
    check_fingerprint,
    check_image_size,
    check_modality,
    check_token_limit,
    describe_failure,
    error_of_item,
    resolve_input_type,
)
from gateway.core.health import HealthTracker
from gateway.core.postprocess import write_vectors
from gateway.core.results import (
    EmbeddingsResult,
    ItemErrors,
    TokenizedRequest,
    Usage,
    count_usage,
    find_truncations,
)
from gateway.core.token_ids import TokenIdPolicy
from gateway.engine import EmbedBatch, EmbedResult, Engine, ServedModel, Slot
from gateway.engine.chunking import estimate_tokens
from gateway.errors import EngineUnavailableError, InvalidRequestError, TooLargeError
from gateway.fetch import ByteBudget, ImageFetcher
from gateway.settings import Settings
from gateway.types import Deadline, EmbeddingsRequest, FailedItem, ImageUrl, InputType, Item, ItemWithImage


class EmbeddingService:
    """Answers embeddings requests.

    Args:
        engine: Started before the first request.
        catalogue: Of the same engine.
        tracker: Records how the engine does.
        fetcher: For images given by URL.
        admission: Limits how much is in flight.
        token_ids: What happens to items given as token ids.
        settings: How vectors are scaled, and how much may be fetched.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        tracker: HealthTracker,
        fetcher: ImageFetcher,
        admission: Admission,
        token_ids: TokenIdPolicy,
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._tracker = tracker
        self._fetcher = fetcher
        self._admission = admission
        self._token_ids = token_ids
        self._settings = settings

    async def embed(self, request: EmbeddingsRequest, deadline: Deadline) -> EmbeddingsResult:
        """Embed the items of a request.

        Raises:
            GatewayError: Of many kinds; the failure of an item names the item.
        """
        model, input_type = await self._resolve(request)
        errors = ItemErrors(request.isolate_errors)
        items = self._check_items(request, model, input_type, errors)
        tokens = {index: estimate_tokens(item, model) for index, item in items.items()}
        gate = self._admission.gate_of(items.values())
        gate.check_room(sum(tokens.values()))
        started_s = time.perf_counter()
        items = await self._fetch_images(items, model, deadline, errors)
        fetched_s = time.perf_counter()
        if not items:
            outputs: list[list[Any]] = [[None] * len(request.items) for _ in request.formats]
            return EmbeddingsResult(model, outputs, Usage(), {}, errors=errors)
        with await gate.enter(sum(tokens.values())) as slot:
            admitted_s = time.perf_counter()
            result = await self._infer(self._build_batch(request, model, input_type, items, tokens, slot))
        inferred_s = time.perf_counter()
        outputs = self._write(request, items, result, errors)
        stage_s = {
            "fetch": fetched_s - started_s,
            "admission": admitted_s - fetched_s,
            "inference": inferred_s - admitted_s,
            "postprocess": time.perf_counter() - inferred_s,
        }
        usage = count_usage(items.values(), result)
        return EmbeddingsResult(model, outputs, usage, stage_s, find_truncations(items, result), errors)

    async def tokenize(self, request: EmbeddingsRequest, deadline: Deadline) -> TokenizedRequest:
        """Tokenise the items of a request, and tile its images, without inference; each item fails by itself.

        Raises:
            GatewayError: The request failed as a whole.
        """
        if request.truncate == "NONE":
            request = replace(request, truncate="END")  # to count what it would cut
        model, input_type = await self._resolve(request)
        errors = ItemErrors(isolate=True)
        items = self._check_items(request, model, input_type, errors)
        tokens = {index: estimate_tokens(item, model) for index, item in items.items()}
        items = await self._fetch_images(items, model, deadline, errors)
        if not items:
            return TokenizedRequest(model, (), None, errors)
        with await self._admission.gate_of(items.values()).enter(sum(tokens.values())) as slot:
            result = await self._engine.tokenize(self._build_batch(request, model, input_type, items, tokens, slot))
        indices = list(items)
        for position, failure in result.failures.items():
            errors.add(indices[position], describe_failure(indices[position], failure))
        return TokenizedRequest(model, indices, result, errors)

    async def _resolve(self, request: EmbeddingsRequest) -> tuple[ServedModel, InputType]:
        """Return the model and the input type that a request names, checked against each other.

        Raises:
            GatewayError: The request does not fit the model.
        """
        resolved = await self._catalogue.resolve(request.model)
        input_type = resolve_input_type(request.input_type, resolved.input_type)
        for vector_format in request.formats:
            check_dimensions(vector_format.dimensions, resolved.model)
        check_token_limit(request.token_limit, resolved.model)
        check_fingerprint(request.fingerprint, resolved.model)
        return resolved.model, input_type

    def _check_items(
        self, request: EmbeddingsRequest, model: ServedModel, input_type: InputType, errors: ItemErrors
    ) -> dict[int, Item]:
        """Return the items that the model takes, by index."""
        items: dict[int, Item] = {}
        for index, item in enumerate(request.items):
            try:
                if isinstance(item, FailedItem):
                    raise item.error
                check_modality(index, item, model, input_type)
                items[index] = self._token_ids.apply(index, item, model)
            except (InvalidRequestError, TooLargeError) as error:
                errors.add(index, error)
        return items

    async def _fetch_images(
        self, items: dict[int, Item], model: ServedModel, deadline: Deadline, errors: ItemErrors
    ) -> dict[int, Item]:
        """Return the items with every image URL replaced by the image, and without those that failed."""
        urls = {
            index: item.image.url
            for index, item in items.items()
            if isinstance(item, ItemWithImage) and isinstance(item.image, ImageUrl)
        }
        if urls:
            budget = ByteBudget(self._settings.max_fetched_bytes)
            fetches = [
                asyncio.ensure_future(self._fetch_image(index, url, deadline, budget, errors))
                for index, url in urls.items()
            ]
            try:
                images = dict(zip(urls, await asyncio.gather(*fetches), strict=True))
            finally:
                for fetch in fetches:
                    fetch.cancel()
            for index, image in images.items():
                item = items[index]
                if image is not None and isinstance(item, ItemWithImage):
                    items[index] = replace(item, image=image)
        for index, item in items.items():
            try:
                check_image_size(index, item, model)
            except TooLargeError as error:
                errors.add(index, error)
        return {index: item for index, item in items.items() if index not in errors} if errors else items

    async def _fetch_image(
        self, index: int, url: str, deadline: Deadline, budget: ByteBudget, errors: ItemErrors
    ) -> bytes | None:
        try:
            return await self._fetcher.fetch_image(url, deadline, budget)
        except (InvalidRequestError, TooLargeError) as error:
            errors.add(index, error_of_item(type(error), index, error.message))
            return None

    def _build_batch(
        self,
        request: EmbeddingsRequest,
        model: ServedModel,
        input_type: InputType,
        items: Mapping[int, Item],
        tokens: Mapping[int, int],
        slot: Slot,
    ) -> EmbedBatch:
        return EmbedBatch(
            model=model,
            items=list(items.values()),
            item_tokens=[tokens[index] for index in items],
            input_type=input_type,
            truncate=request.truncate,
            slot=slot,
            check_token_ids=self._token_ids.is_checked,
        )

    async def _infer(self, batch: EmbedBatch) -> EmbedResult:
        """Call the engine, and record how that went.

        Raises:
            GatewayError: The engine failed.
        """
        try:
            result = await self._engine.embed(batch)
        except EngineUnavailableError:
            self._tracker.record_failure(batch.model)
            raise
        result.check_finite()
        self._tracker.record_success(batch.model)
        return result

    def _write(
        self, request: EmbeddingsRequest, items: Mapping[int, Item], result: EmbedResult, errors: ItemErrors
    ) -> list[list[Any]]:
        """Return, for each format, one vector per item of the request; None for those that failed."""
        embeddings, indices = result.embeddings, list(items)
        if result.failures:
            for position, failure in result.failures.items():
                errors.add(indices[position], describe_failure(indices[position], failure))
            succeeded = [position for position in range(len(indices)) if position not in result.failures]
            embeddings, indices = embeddings[succeeded], [indices[position] for position in succeeded]
        outputs = [write_vectors(embeddings, each, self._settings.int8_scale) for each in request.formats]
        if not errors:
            return outputs
        rows = [dict(zip(indices, vectors, strict=True)) for vectors in outputs]
        return [[vectors.get(index) for index in range(len(request.items))] for vectors in rows]
