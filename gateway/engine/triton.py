"""The engine that is a Triton server, called over gRPC as `docs/contract.md` describes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import httpcore

from gateway.engine.chunking import Chunk, count_tokens, count_unused_tokens, cut_batch, merge_results, merge_tokens
from gateway.engine.discovery import Discovery, TritonModel
from gateway.engine.grpc_errors import grpc_errors_translated, is_gone
from gateway.engine.interface import EmbedBatch, EmbedResult, ItemFailure, ServedModel, Slot, TokenizeResult
from gateway.engine.microbatch import MicroBatcher
from gateway.engine.replicas import Replica, ReplicaSet, is_lost
from gateway.engine.wire import all_failed, build_request, none_tokenized, read_refusal, read_response, read_tokens
from gateway.errors import EngineUnavailableError, ModelReplacedError
from gateway.settings import Settings
from gateway.types import ItemWithImage

logger = logging.getLogger(__name__)

CALL_TIMEOUT_FACTOR = 2
"""A call is given up as lost after this many times the request timeout."""

MIN_RENEWAL_S = 0.05
METRICS_TIMEOUT_S = 5.0
MAX_METRICS_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class TritonEngine:
    """An `Engine` over one or several Tritons.

    Args:
        settings: Addresses of Triton, and the limits of chunks and micro-batches.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: Mapping[str, TritonModel] = {}
        self._unavailable: frozenset[str] = frozenset()
        self._discovery: asyncio.Task[Discovery] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._micro_batcher = MicroBatcher(self._embed_texts, settings.microbatch_items, settings.microbatch_wait_ms)
        self._call_timeout_s = CALL_TIMEOUT_FACTOR * settings.request_timeout_s
        self._calls: set[Any] = set()
        self._replicas = ReplicaSet(settings.triton_url)

    async def start(self) -> None:
        """Open the channels, which reconnect by themselves, and read the list of models from time to time."""
        await self._replicas.start()
        self._renewal = asyncio.create_task(self._renew_models())

    async def close(self) -> None:
        """Close the channels after giving calls in flight a moment to end."""
        for task in (self._renewal, self._discovery):
            if task is not None:
                task.cancel()
        await self._replicas.close()

    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        """Return the served models, as of the last list.

        Args:
            refresh: Wait for a new list.

        Raises:
            EngineUnavailableError: Triton does not respond, and never has.
        """
        if refresh or not self._models:
            await asyncio.shield(self._discover())
        return {public_id: model.served for public_id, model in self._models.items()}

    def unavailable_models(self) -> frozenset[str]:
        """Return the models that Triton could not load, as of the last list: public ids or, where unknown, slugs."""
        return self._unavailable

    async def _renew_models(self) -> None:
        """Read the list of models again and again, for ever."""
        while True:
            await asyncio.sleep(max(self._settings.catalogue_ttl_s, MIN_RENEWAL_S))
            self._discover()

    def _discover(self) -> "asyncio.Task[Discovery]":
        """Ask for the list of models, unless that is under way."""
        if self._discovery is None or self._discovery.done():
            self._discovery = asyncio.get_running_loop().create_task(self._read_models())
            self._discovery.add_done_callback(retrieve_error)
        return self._discovery

    async def _read_models(self) -> Discovery:
        found = await self._replicas.discover()
        if {each.served.identity for each in found.models.values()} != {
            each.served.identity for each in self._models.values()
        }:
            logger.info("models served: %s", ", ".join(found.models) or "none")
            self._warn_of_image_limits(found.models)
        if found.unavailable != self._unavailable:
            names = ", ".join(sorted(found.unavailable)) or "none"
            logger.warning("models that Triton could not load: %s; its log has the reasons", names)
        self._models, self._unavailable = found.models, found.unavailable
        return found

    def _warn_of_image_limits(self, models: Mapping[str, TritonModel]) -> None:
        for public_id, model in models.items():
            if model.served.takes_images and model.served.max_image_bytes < self._settings.max_image_bytes:
                logger.warning(
                    "GATEWAY_MAX_IMAGE_BYTES is %d, but %s was exported with a limit of %d; export it again with"
                    " --set preprocess_image.max_image_bytes=%d to raise it",
                    self._settings.max_image_bytes,
                    public_id,
                    model.served.max_image_bytes,
                    self._settings.max_image_bytes,
                )

    async def embed(self, batch: EmbedBatch) -> EmbedResult:
        """Embed or rank items in one or several concurrent inference requests; a few texts share one with others'.

        Raises:
            GatewayError: A request failed as a whole; chunks not yet sent are dropped.
        """
        if self._is_small(batch):
            with await batch.enter(sum(batch.item_tokens)) as slot:
                return await self._micro_batcher.embed(batch, slot)
        chunks = self._cut(batch)
        jobs = [lambda chunk=chunk: self._infer_in_turn(batch, chunk) for chunk in chunks]
        results = await run_bounded(jobs, self._settings.chunk_concurrency)
        return merge_results(chunks, results, len(batch.items), batch.model.dimensions)

    def _is_small(self, batch: EmbedBatch) -> bool:
        """Return whether the batch is a few texts that may share an inference request."""
        return (
            len(batch.items) < self._settings.microbatch_items
            and sum(batch.item_tokens) <= self._settings.chunk_tokens
            and not any(isinstance(item, ItemWithImage) for item in batch.items)
        )

    def _cut(self, batch: EmbedBatch) -> list[Chunk]:
        """Cut a batch into chunks."""
        max_tokens = min(self._settings.chunk_tokens, batch.chunk_tokens or self._settings.chunk_tokens)
        return cut_batch(batch, max_items=self._settings.chunk_items, max_tokens=max_tokens)

    async def _embed_texts(self, batch: EmbedBatch, slot: Slot) -> EmbedResult:
        """Embed texts in one inference request."""
        return await self._infer(batch, Chunk("text", range(len(batch.items))), slot)

    async def _infer_in_turn(self, batch: EmbedBatch, chunk: Chunk) -> EmbedResult:
        """Wait for the turn of a chunk, and embed it."""
        with await batch.enter(count_tokens(batch, chunk)) as slot:
            result = await self._infer(batch, chunk, slot)
            if chunk.modality == "image":
                slot.refund(count_unused_tokens(batch.model, result))
            return result

    async def _infer(self, batch: EmbedBatch, chunk: Chunk, slot: Slot) -> EmbedResult:
        """Send one chunk and read the response."""
        response, failures = await self._call_for_items(batch, chunk, slot)
        if failures:
            return all_failed(failures, batch.model.dimensions)
        return read_response(response, chunk, batch.model)

    async def tokenize(self, batch: EmbedBatch) -> TokenizeResult:
        """Run the ensembles' first steps alone.

        Raises:
            GatewayError: A request failed as a whole; chunks not yet sent are dropped.
        """
        chunks = self._cut(batch)
        jobs = [lambda chunk=chunk: self._tokenize(batch, chunk) for chunk in chunks]
        results = await run_bounded(jobs, self._settings.chunk_concurrency)
        return merge_tokens(chunks, results, len(batch.items))

    async def _tokenize(self, batch: EmbedBatch, chunk: Chunk) -> TokenizeResult:
        with await batch.enter(count_tokens(batch, chunk)) as slot:
            response, failures = await self._call_for_items(batch, chunk, slot, only_tokenize=True)
        return none_tokenized(failures) if failures else read_tokens(response, chunk)

    async def _call_for_items(
        self, batch: EmbedBatch, chunk: Chunk, slot: Slot, *, only_tokenize: bool = False
    ) -> tuple[Any, Mapping[int, ItemFailure]]:
        """Call ModelInfer for a chunk, and once more, on another replica, if the first one is lost.

        Returns:
            The response and no failures, or None and the failure of every item.

        Raises:
            GatewayError: The request failed for a reason that is none of its items'.
        """
        replica = self._replicas.pick(batch.model)
        self._replicas.earn_retry()
        with grpc_errors_translated():
            try:
                try:
                    return await self._send(replica, batch, chunk, slot, only_tokenize), {}
                except grpc.aio.AioRpcError as error:
                    is_elsewhere = is_lost(error) or is_gone(error)
                    other = self._replicas.pick_for_retry(batch.model, replica) if is_elsewhere else None
                    if other is None:
                        raise
                    logger.warning("repeating a request on %s: %s was lost", other.target, replica.target)
                    return await self._send(other, batch, chunk, slot, only_tokenize), {}
            except grpc.aio.AioRpcError as error:
                if is_gone(error):
                    raise ModelReplacedError from error
                failures = read_refusal(error, len(chunk.indices))
                if failures is None:
                    raise
                return None, failures

    async def _send(self, replica: Replica, batch: EmbedBatch, chunk: Chunk, slot: Slot, only_tokenize: bool) -> Any:
        """Call ModelInfer on a replica and record whether that is there.

        Returns:
            The ModelInferResponse.

        Raises:
            AioRpcError: The call failed.
        """
        ensemble = replica.models[batch.model.public_id].ensembles[chunk.modality]
        request = build_request(ensemble, batch, chunk, only_tokenize=only_tokenize)
        try:
            response = await self._call(replica, request, slot, count_tokens(batch, chunk))
        except grpc.aio.AioRpcError as error:
            if is_lost(error):
                replica.record_failure()
            raise
        replica.record_success()
        return response

    async def _call(self, replica: Replica, request: Any, slot: Slot, cost: int) -> Any:
        """Call ModelInfer and wait for it to end.

        If the caller is cancelled, the call goes on and keeps its slot: cancelling a call, or letting it run into its
        timeout, can crash Triton by a race in its gRPC front end (triton-inference-server/server issues 7368 and 8034).

        Returns:
            The ModelInferResponse.

        Raises:
            AioRpcError: The call failed.
        """
        ended = asyncio.get_running_loop().create_future()

        def end(call: Any) -> None:
            self._calls.discard(call)
            replica.in_flight -= cost
            slot.release()
            if not ended.done():
                ended.set_result(None)

        call = replica.stub.ModelInfer(request, timeout=self._call_timeout_s)
        self._calls.add(call)  # gRPC cancels a call that is no longer referenced
        replica.in_flight += cost
        slot.hold()
        call.add_done_callback(end)
        await ended
        return await call


async def run_bounded(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """Run jobs concurrently, at most `limit` at a time.

    Returns:
        Their results, in order.

    Raises:
        Exception: The first that a job raised, after the others have been cancelled.
    """
    free = asyncio.Semaphore(limit)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await job()

    tasks = [asyncio.ensure_future(run(job)) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def retrieve_error(task: "asyncio.Task[Any]") -> None:
    """Mark a background task's error as seen: the next request asks again and reports it."""
    if not task.cancelled():
        task.exception()


async def read_triton_metrics(url: str) -> bytes:
    """Return Triton's own metrics in Prometheus' text format: queue and compute times of every step, and failures.

    Raises:
        EngineUnavailableError: Triton does not return them in time, or they are implausibly large.
    """
    unavailable = EngineUnavailableError("the engine's metrics are not available at the moment")
    page = b""
    try:
        async with (
            asyncio.timeout(METRICS_TIMEOUT_S),
            httpcore.AsyncConnectionPool() as pool,
            pool.stream("GET", url) as response,
        ):
            async for piece in response.aiter_stream():
                page += piece
                if len(page) > MAX_METRICS_BYTES:
                    raise unavailable
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, TimeoutError) as error:
        raise unavailable from error
    if response.status != 200:
        raise unavailable
    return page
