"""The service behind every route that embeds or ranks: model lookup, files, admission, inference, post-processing."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from msgspec.structs import replace

from gateway.core.admission import Admission, Ticket
from gateway.core.catalogue import Catalogue
from gateway.core.checks import (
    check_dimensions,
    check_fingerprint,
    check_length,
    check_modality,
    check_page_count,
    check_promptable,
    check_query,
    check_token_limit,
    describe_failure,
    resolve_input_type,
    resolve_prompt,
)
from gateway.core.files import FileReader
from gateway.core.health import HealthTracker
from gateway.core.postprocess import write_vectors
from gateway.core.results import (
    EmbeddingsResult,
    ItemErrors,
    RankingResult,
    Run,
    TokenizedRequest,
    count_usage,
    find_truncations,
)
from gateway.core.token_ids import TokenIdPolicy
from gateway.core.work import Effort, Work, average_by_item, fill_gaps
from gateway.engine import EmbedBatch, EmbedResult, Engine
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import FloatVectors
from gateway.errors import EngineUnavailableError, InvalidRequestError, ModelReplacedError, TooLargeError
from gateway.fetch import FileFetcher
from gateway.settings import Settings
from gateway.types import (
    Client,
    Deadline,
    DocumentItem,
    EmbeddingsRequest,
    FailedItem,
    InferenceRequest,
    Item,
    ItemWithFile,
    Place,
    RankingRequest,
    TextItem,
)

ANYBODY = Client()

MAX_REPLACEMENTS = 2
"""How often a request begins anew because its model was replaced."""

T = TypeVar("T")


class InferenceService:
    """Answers requests for embeddings and rankings.

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
        self._files = FileReader(engine, fetcher, admission, settings)
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
        """Embed the items of a request, all of them by the same model; anew if that is replaced meanwhile.

        Args:
            request: What to embed.
            deadline: Of fetches; the caller cancels the rest.
            client: Whose share of the engine it takes.
            effort: Where to note what the request costs, whether or not it succeeds.

        Raises:
            GatewayError: Of many kinds; the failure of an item names the item.
        """
        return await self._repeat(lambda: self._embed(request, deadline, client, effort))

    async def _embed(
        self, request: EmbeddingsRequest, deadline: Deadline, client: Client, effort: Effort | None
    ) -> EmbeddingsResult:
        work = await self._begin(request, deadline, client, request.isolate_errors)
        run = await self._run(work, effort or Effort())
        started_s = time.perf_counter()
        outputs, places = self._write(work, request, run.vectors)
        stage_s = run.stage_s | {"postprocess": time.perf_counter() - started_s} if run.stage_s else {}
        return EmbeddingsResult(
            model=work.model,
            usage=run.usage,
            stage_s=stage_s,
            truncations=run.truncations,
            errors=work.errors,
            outputs=outputs,
            places=places,
        )

    async def rank(
        self, request: RankingRequest, deadline: Deadline, client: Client = ANYBODY, effort: Effort | None = None
    ) -> RankingResult:
        """Score the items of a request by its query; arguments and errors as those of `embed`."""
        return await self._repeat(lambda: self._rank(request, deadline, client, effort))

    async def _rank(
        self, request: RankingRequest, deadline: Deadline, client: Client, effort: Effort | None
    ) -> RankingResult:
        work = await self._begin(request, deadline, client, request.isolate_errors)
        run = await self._run(work, effort or Effort())
        scores = np.full(len(request.items), np.nan, np.float32)
        indices = np.array([work.index_of(position) for position in work.items], np.intp)
        np.fmax.at(scores, indices, run.vectors[:, 0])  # a document of several pages gets the score of the best
        return RankingResult(
            model=work.model,
            usage=run.usage,
            stage_s=run.stage_s,
            truncations=run.truncations,
            errors=work.errors,
            scores=scores,
        )

    async def tokenize(
        self, request: EmbeddingsRequest, deadline: Deadline, client: Client = ANYBODY
    ) -> TokenizedRequest:
        """Tokenise the items of a request, and tile its images, without inference; each item fails by itself.

        Raises:
            GatewayError: The request failed as a whole.
        """
        if request.truncate == "NONE":
            request = replace(request, truncate="END")  # to count what it would cut
        return await self._repeat(lambda: self._tokenize(request, deadline, client))

    async def _tokenize(self, request: EmbeddingsRequest, deadline: Deadline, client: Client) -> TokenizedRequest:
        work = await self._begin(request, deadline, client, isolate_errors=True)
        await self._files.read(work)
        if not work.items:
            return TokenizedRequest(work.model, (), None, work.errors)
        with self._admit(work) as ticket:
            result = await self._engine.tokenize(self._build_batch(work, ticket))
        places = [work.place_of(position) for position in work.items]
        for row, failure in result.failures.items():
            work.errors.add(places[row].index, describe_failure(places[row], failure))
        return TokenizedRequest(work.model, places, result, work.errors)

    async def _repeat(self, serve: Callable[[], Awaitable[T]]) -> T:
        """Serve a request, and again with the model that has taken the place of its own.

        Raises:
            ModelReplacedError: Again and again, there is no model of the name that was there a moment ago.
        """
        for _ in range(MAX_REPLACEMENTS):
            try:
                return await serve()
            except ModelReplacedError:
                await self._catalogue.refresh()
        return await serve()

    async def _begin(self, request: InferenceRequest, deadline: Deadline, client: Client, isolate_errors: bool) -> Work:
        """Check a request against the model that it names.

        Raises:
            GatewayError: The request does not fit the model.
        """
        resolved = await self._catalogue.resolve(request.model, request.task)
        model = resolved.model
        work = Work(request, client, deadline, model, ItemErrors(isolate_errors), request.places)
        image_queries = True
        if isinstance(request, EmbeddingsRequest):
            asked_type = resolve_input_type(request.input_type, resolved.input_type)
            work.input_type, work.prompt = resolve_prompt(request.prompt, asked_type, model)
            if work.prompt:
                work.prompt_tokens = estimate_tokens(TextItem(work.prompt), model)
            image_queries = request.image_queries
            for vector_format in request.formats:
                check_dimensions(vector_format.dimensions, model)
        elif isinstance(request, RankingRequest):
            check_query(request.query, model)
            work.query, work.query_tokens = request.query, estimate_tokens(TextItem(request.query), model)
        check_token_limit(request.token_limit, model)
        check_fingerprint(request.fingerprint, model)
        for position, item in enumerate(request.items):
            if isinstance(item, TextItem) and len(item.text) <= model.max_read_chars:  # which every model takes
                work.add(position, item)
                continue
            index = work.index_of(position)
            work.has_files |= isinstance(item, ItemWithFile)
            try:
                if isinstance(item, FailedItem):
                    raise item.error
                check_modality(index, item, model, work.input_type, image_queries)
                if work.prompt is not None:
                    check_promptable(index, item)
                if isinstance(item, DocumentItem):
                    check_page_count(index, 1, self._settings.max_pdf_pages)
                item = self._token_ids.apply(index, item, model)
                work.add(position, check_length(index, item, model, request.truncate))
            except (InvalidRequestError, TooLargeError) as error:
                work.fail(position, error)
        work.drop_failed()
        return work

    async def _run(self, work: Work, effort: Effort) -> Run:
        """Take work through the stages that all tasks share: files, admission, inference.

        Raises:
            GatewayError: The request failed as a whole.
        """
        self._tracker.check_trusted(work.model)
        started_s = time.perf_counter()
        await self._files.read(work)
        fetched_s = time.perf_counter()
        if not work.items:
            return Run(np.empty((0, work.model.dimensions), np.float32))
        with self._admit(work) as ticket:
            effort.ticket = ticket
            result = await self._infer(self._build_batch(work, ticket))
        inferred_s = time.perf_counter()
        waited_s = ticket.waited_s or 0.0
        usage = count_usage(work.items.values(), result)
        truncations = find_truncations(map(work.index_of, work.items), result)
        vectors = drop_failures(work, result) if result.failures else result.embeddings
        stage_s = {"fetch": fetched_s - started_s} if work.has_files else {}
        stage_s |= {"admission": waited_s, "inference": inferred_s - fetched_s - waited_s}
        return Run(vectors, usage, stage_s, truncations)

    def _admit(self, work: Work) -> Ticket:
        """Give a request its share of the engine; see `AdmissionGate.admit`."""
        gate = self._admission.gate_of(work.model.public_id, work.kind())
        return gate.admit(work.client, work.total_tokens(), work.deadline)

    def _build_batch(self, work: Work, ticket: Ticket) -> EmbedBatch:
        return EmbedBatch(
            model=work.model,
            items=cast(list[Item], list(work.items.values())),  # PDFs have been replaced by their pages
            item_tokens=[work.tokens[position] for position in work.items],
            input_type=work.input_type,
            prompt=work.prompt,
            truncate=work.request.truncate,
            enter=ticket.enter,
            chunk_tokens=ticket.chunk_tokens,
            check_token_ids=self._token_ids.is_checked,
            deadline=work.deadline,
            query=work.query,
        )

    async def _infer(self, batch: EmbedBatch) -> EmbedResult:
        """Call the engine, and record how that went.

        Raises:
            GatewayError: The engine failed.
        """
        try:
            result = await self._engine.embed(batch)
        except ModelReplacedError:
            raise
        except EngineUnavailableError:
            self._tracker.record_failure(batch.model)
            raise
        result.check_finite()
        self._tracker.record_success(batch.model)
        return result

    def _write(
        self, work: Work, request: EmbeddingsRequest, vectors: FloatVectors
    ) -> tuple[list[list[Any]], Sequence[Place] | None]:
        """Return, for each format, the vectors, None for an item that failed; and what they stand for."""
        places = None
        if work.places is not None or work.errors:
            places = [work.place_of(position) for position in work.items]
            if request.combine == "mean" and places:
                vectors, places = average_by_item(vectors, places)
        outputs = [write_vectors(vectors, each, self._settings.int8_scale) for each in request.formats]
        return (outputs, None) if places is None else fill_gaps(outputs, places, work.errors)


def drop_failures(work: Work, result: EmbedResult) -> FloatVectors:
    """Note the errors of the items that the engine reports, and return the vectors of those that are left.

    Raises:
        GatewayError: The request does not isolate errors, or the engine is at fault.
    """
    positions = list(work.items)
    for row, failure in result.failures.items():
        work.fail(positions[row], describe_failure(work.place_of(positions[row]), failure))
    work.drop_failed()
    return result.embeddings[[row for row, position in enumerate(positions) if position in work.items]]
