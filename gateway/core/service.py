"""The embedding service: model lookup, file fetching, admission, inference, post-processing."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from gateway.core.admission import Admission, AdmissionGate, Ticket
from gateway.core.catalogue import Catalogue
from gateway.core.checks import (
    check_dimensions,
    check_file_size,
    check_fingerprint,
    check_length,
    check_modality,
    check_page_count,
    check_token_limit,
    describe_failure,
    error_of_item,
    resolve_input_type,
)
from gateway.core.health import HealthTracker
from gateway.core.postprocess import write_vectors
from gateway.core.results import EmbeddingsResult, ItemErrors, TokenizedRequest, Usage, count_usage, find_truncations
from gateway.core.token_ids import TokenIdPolicy
from gateway.core.work import Effort, Work, average_by_item, fill_gaps
from gateway.engine import EmbedBatch, EmbedResult, Engine
from gateway.errors import EngineUnavailableError, InvalidRequestError, TooLargeError
from gateway.fetch import ByteBudget, FileFetcher
from gateway.settings import Settings
from gateway.types import (
    Client,
    Deadline,
    DocumentItem,
    EmbeddingsRequest,
    FailedItem,
    FileUrl,
    ImageItem,
    Item,
    ItemWithFile,
    ItemWithImage,
    Place,
    TextItem,
)

ANYBODY = Client()


class EmbeddingService:
    """Answers embeddings requests.

    Args:
        engine: Started before the first request.
        catalogue: Of the same engine.
        tracker: Records how the engine does.
        fetcher: For files given by URL.
        admission: Limits how much is in flight.
        token_ids: What happens to items given as token ids.
        settings: How vectors are scaled, and how much may be fetched.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        tracker: HealthTracker,
        fetcher: FileFetcher,
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

    async def embed(
        self,
        request: EmbeddingsRequest,
        deadline: Deadline,
        client: Client = ANYBODY,
        effort: Effort | None = None,
    ) -> EmbeddingsResult:
        """Embed the items of a request.

        Args:
            request: What to embed.
            deadline: Of fetches; the caller cancels the rest.
            client: Whose share of the engine it takes.
            effort: Where to note what the request costs, whether or not it succeeds.

        Raises:
            GatewayError: Of many kinds; the failure of an item names the item.
        """
        work = await self._begin(request, deadline, client, request.isolate_errors)
        self._tracker.check_trusted(work.model)
        started_s = time.perf_counter()
        await self._read_files(work, deadline)
        fetched_s = time.perf_counter()
        if not work.items:
            outputs, places = fill_gaps([[] for _ in request.formats], (), work.errors)
            return EmbeddingsResult(work.model, outputs, Usage(), {}, (), places, work.errors)
        with self._admit(work) as ticket:
            if effort is not None:
                effort.ticket = ticket
            result = await self._infer(self._build_batch(work, ticket))
        inferred_s = time.perf_counter()
        waited_s = ticket.waited_s or 0.0
        usage = count_usage(work.items.values(), result)
        truncations = find_truncations(map(work.index_of, work.items), result)
        outputs, written_places = self._write(work, result)
        stage_s = {"fetch": fetched_s - started_s} if work.has_files else {}
        stage_s |= {
            "admission": waited_s,
            "inference": inferred_s - fetched_s - waited_s,
            "postprocess": time.perf_counter() - inferred_s,
        }
        return EmbeddingsResult(work.model, outputs, usage, stage_s, truncations, written_places, work.errors)

    async def tokenize(
        self, request: EmbeddingsRequest, deadline: Deadline, client: Client = ANYBODY
    ) -> TokenizedRequest:
        """Tokenise the items of a request, and tile its images, without inference; each item fails by itself.

        Raises:
            GatewayError: The request failed as a whole.
        """
        if request.truncate == "NONE":
            request = replace(request, truncate="END")  # to count what it would cut
        work = await self._begin(request, deadline, client, isolate_errors=True)
        await self._read_files(work, deadline)
        if not work.items:
            return TokenizedRequest(work.model, (), None, work.errors)
        with self._admit(work) as ticket:
            result = await self._engine.tokenize(self._build_batch(work, ticket))
        places = [work.place_of(position) for position in work.items]
        for row, failure in result.failures.items():
            work.errors.add(places[row].index, describe_failure(places[row], failure))
        return TokenizedRequest(work.model, places, result, work.errors)

    async def _begin(
        self, request: EmbeddingsRequest, deadline: Deadline, client: Client, isolate_errors: bool
    ) -> Work:
        """Check a request against the model that it names.

        Raises:
            GatewayError: The request does not fit the model.
        """
        resolved = await self._catalogue.resolve(request.model)
        model, input_type = resolved.model, resolve_input_type(request.input_type, resolved.input_type)
        for vector_format in request.formats:
            check_dimensions(vector_format.dimensions, model)
        check_token_limit(request.token_limit, model)
        check_fingerprint(request.fingerprint, model)
        errors = ItemErrors(isolate_errors)
        work = Work(request, client, deadline, model, input_type, errors, {}, request.places, {})
        for position, item in enumerate(request.items):
            if isinstance(item, TextItem) and len(item.text) <= model.max_read_chars:  # which every model takes
                work.add(position, item)
                continue
            index = work.index_of(position)
            work.has_files |= isinstance(item, ItemWithFile)
            try:
                if isinstance(item, FailedItem):
                    raise item.error
                check_modality(index, item, model, input_type, request.image_queries)
                if isinstance(item, DocumentItem):
                    check_page_count(index, 1, self._settings.max_pdf_pages)
                item = self._token_ids.apply(index, item, model)
                work.add(position, check_length(index, item, model, request.truncate))
            except (InvalidRequestError, TooLargeError) as error:
                work.fail(position, error)
        work.drop_failed()
        return work

    def _gate_of(self, work: Work) -> AdmissionGate:
        return self._admission.gate_of(work.model.public_id, work.kind())

    def _admit(self, work: Work) -> Ticket:
        """Give a request its share of the engine; see `AdmissionGate.admit`."""
        return self._gate_of(work).admit(work.client, work.total_tokens(), work.deadline)

    async def _read_files(self, work: Work, deadline: Deadline) -> None:
        """Fetch the files that are given by URL, check the sizes of all, and replace PDFs by their pages.

        Raises:
            GatewayError: The request would wait too long, a file could not be read, or there are too many pages.
        """
        if not work.has_files:
            return
        work.measure_images(self._settings.max_image_pixels, self._settings.max_request_pixels)
        self._gate_of(work).check_room(work.total_tokens(), work.deadline)  # before anything is fetched
        await self._fetch_files(work, deadline)
        for position, item in work.items.items():
            try:
                check_file_size(work.index_of(position), item, work.model)
            except TooLargeError as error:
                work.fail(position, error)
        work.drop_failed()
        work.measure_images(self._settings.max_image_pixels, self._settings.max_request_pixels)
        await self._open_documents(work)

    async def _fetch_files(self, work: Work, deadline: Deadline) -> None:
        urls = {
            position: item.file.url
            for position, item in work.items.items()
            if isinstance(item, ItemWithFile) and isinstance(item.file, FileUrl)
        }
        if not urls:
            return
        budget = ByteBudget(self._settings.max_fetched_bytes)
        fetches = [
            asyncio.ensure_future(self._fetch_file(work, position, url, deadline, budget))
            for position, url in urls.items()
        ]
        try:
            await asyncio.gather(*fetches)
        finally:
            for fetch in fetches:
                fetch.cancel()

    async def _fetch_file(self, work: Work, position: int, url: str, deadline: Deadline, budget: ByteBudget) -> None:
        try:
            file = await self._fetcher.fetch(url, deadline, budget)
        except (InvalidRequestError, TooLargeError) as error:
            work.fail(position, error_of_item(type(error), work.index_of(position), error.message))
        else:
            work.items[position] = replace(work.items[position], file=file)

    async def _open_documents(self, work: Work) -> None:
        """Replace PDFs by their pages, which the engine counts.

        Raises:
            GatewayError: A PDF cannot be read, or has too many pages.
        """
        documents = {
            position: ImageItem(item.file, page=1)
            for position, item in work.items.items()
            if isinstance(item, DocumentItem)
        }
        if not documents:
            return
        page_tokens = [work.tokens[position] for position in documents]
        gate = self._admission.gate_of(work.model.public_id, "slow_image")
        with gate.admit(work.client, sum(page_tokens), work.deadline) as ticket:
            pages = list(documents.values())
            first_pages = EmbedBatch(
                work.model, pages, page_tokens, "passage", "NONE", ticket.enter, deadline=work.deadline
            )
            result = await self._engine.tokenize(first_pages)
        page_counts = dict(zip(documents, result.page_counts.tolist(), strict=True))
        for row, position in enumerate(documents):
            index = work.index_of(position)
            try:
                if failure := result.failures.get(row):
                    raise describe_failure(Place(index), failure)
                check_page_count(index, page_counts[position], self._settings.max_pdf_pages)
            except (InvalidRequestError, TooLargeError) as error:
                work.fail(position, error)
        work.drop_failed()
        work.open_documents(page_counts)
        images = sum(isinstance(item, ItemWithImage) for item in work.items.values())
        if images > self._settings.max_images:
            raise InvalidRequestError(
                f"input must have at most {self._settings.max_images} images, pages of PDFs included", param="input"
            )

    def _build_batch(self, work: Work, ticket: Ticket) -> EmbedBatch:
        return EmbedBatch(
            model=work.model,
            items=cast(list[Item], list(work.items.values())),  # PDFs have been replaced by their pages
            item_tokens=[work.tokens[position] for position in work.items],
            input_type=work.input_type,
            truncate=work.request.truncate,
            enter=ticket.enter,
            chunk_tokens=ticket.chunk_tokens,
            check_token_ids=self._token_ids.is_checked,
            deadline=work.deadline,
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

    def _write(self, work: Work, result: EmbedResult) -> tuple[list[list[Any]], Sequence[Place] | None]:
        """Return, for each format, the vectors, None for an item that failed; and what they stand for."""
        vectors, positions = result.embeddings, list(work.items)
        if result.failures:
            for row, failure in result.failures.items():
                work.fail(positions[row], describe_failure(work.place_of(positions[row]), failure))
            work.drop_failed()
            kept = [row for row, position in enumerate(positions) if position in work.items]
            vectors, positions = vectors[kept], list(work.items)
        places = None
        if work.places is not None or work.errors:
            places = [work.place_of(position) for position in positions]
            if work.request.combine == "mean" and places:
                vectors, places = average_by_item(vectors, places)
        outputs = [write_vectors(vectors, each, self._settings.int8_scale) for each in work.request.formats]
        return (outputs, None) if places is None else fill_gaps(outputs, places, work.errors)
