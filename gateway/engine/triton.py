"""The engine that is a Triton server, spoken to over gRPC as `docs/contract.md` says."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2_grpc

from gateway.admission import Place
from gateway.engine.chunking import Chunk, cut_batch, merge_chunks
from gateway.engine.discovery import TritonModel, discover_models
from gateway.engine.failures import read_refusal
from gateway.engine.grpc_errors import grpc_errors_translated
from gateway.engine.inference import all_failed, build_request, read_answer
from gateway.engine.interface import EmbedBatch, Embedded, ServedModel
from gateway.engine.joining import Joiner
from gateway.engine.tensors import InferRequest, InferResponse
from gateway.errors import EngineUnavailableError
from gateway.settings import Settings

logger = logging.getLogger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # The default waits up to two minutes before it tries a restarted Triton again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Notices a peer that went away without closing the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)

DISCOVERY_TIMEOUT_S = 5.0

HUNG_AFTER_TIMEOUTS = 2
"""A call that takes so many times as long as a client waits is given up: Triton has lost it."""

CLOSING_GRACE_S = 5.0

T = TypeVar("T")


class TritonEngine:
    """An `Engine` over one gRPC channel."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet.

        Args:
            settings: where Triton is, and how to cut batches.
        """
        self._settings = settings
        self._models: Mapping[str, TritonModel] = {}
        self._models_at_s = float("-inf")
        self._discovery: asyncio.Task[Mapping[str, TritonModel]] | None = None
        self._joiner = Joiner(self._embed_texts, settings.join_items, settings.join_wait_ms)
        self._call_timeout_s = HUNG_AFTER_TIMEOUTS * settings.request_timeout_s
        self._calls: set[Any] = set()
        self._channel: Any = None
        self._stub: Any = None

    async def start(self) -> None:
        """Opens the channel; it connects, and connects again, by itself."""
        self._channel = grpc.aio.insecure_channel(self._settings.triton_url, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the channel, once calls in flight have ended or had time to."""
        if self._discovery is not None:
            self._discovery.cancel()
        if self._channel is not None:
            await self._channel.close(CLOSING_GRACE_S)

    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        """The served models; an old list is answered at once and renewed in the background.

        Args:
            refresh: wait for a new list.

        Raises:
            EngineUnavailableError: Triton did not answer, and never has.
        """
        age_s = time.monotonic() - self._models_at_s
        if refresh or not self._models:
            await asyncio.shield(self._discover())
        elif age_s > self._settings.catalogue_ttl_s:
            self._discover()
        return {public_id: model.served for public_id, model in self._models.items()}

    def _discover(self) -> "asyncio.Task[Mapping[str, TritonModel]]":
        """Asks for the list of models, unless that is under way."""
        if self._discovery is None or self._discovery.done():
            self._discovery = asyncio.get_running_loop().create_task(self._read_models())
            self._discovery.add_done_callback(retrieve_error)
        return self._discovery

    async def _read_models(self) -> Mapping[str, TritonModel]:
        self._models_at_s = time.monotonic()  # also when it fails: one question per period is enough
        models = await discover_models(self._stub, DISCOVERY_TIMEOUT_S)
        if models.keys() != self._models.keys():
            logger.info("models served: %s", ", ".join(models) or "none")
        self._models = models
        return models

    async def embed(self, batch: EmbedBatch) -> Embedded:
        """Embeds the items in as many concurrent inference requests as their cost asks for; few texts beside others'.

        Raises:
            GatewayError: a request failed as a whole; those not yet sent never are.
        """
        model = self._find(batch.model)
        chunks = cut_batch(batch, max_items=self._settings.chunk_items, max_tokens=self._settings.chunk_tokens)
        if len(chunks) == 1:
            if chunks[0].modality == "text" and len(batch.items) < self._settings.join_items:
                return await self._joiner.embed(batch)
            return await self._infer(model, batch, chunks[0])
        jobs = [lambda chunk=chunk: self._infer(model, batch, chunk) for chunk in chunks]
        answers = await run_bounded(jobs, self._settings.chunk_concurrency)
        return merge_chunks(chunks, answers, len(batch.items), batch.model.dimensions)

    def _find(self, served: ServedModel) -> TritonModel:
        """Triton's side of a model.

        Raises:
            EngineUnavailableError: it is served no more.
        """
        model = self._models.get(served.public_id)
        if model is None:
            raise EngineUnavailableError("the engine is not available at the moment", retry_after_s=1.0)
        return model

    async def _embed_texts(self, batch: EmbedBatch) -> Embedded:
        """Embeds texts in one inference request."""
        return await self._infer(self._find(batch.model), batch, Chunk("text", range(len(batch.items))))

    async def _infer(self, model: TritonModel, batch: EmbedBatch, chunk: Chunk) -> Embedded:
        """Sends one chunk and reads the answer."""
        count = len(chunk.indices)
        request = build_request(model, batch, chunk)
        with grpc_errors_translated():
            try:
                message = await self._call(request, batch.place)
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.INVALID_ARGUMENT
                failures = read_refusal(error.details() or "", count) if refused else None
                if failures is None:
                    raise
                return all_failed(failures, count, batch.model.dimensions)
        return read_answer(InferResponse(message), chunk, batch.model.dimensions)

    async def _call(self, request: InferRequest, place: Place) -> Any:
        """Calls ModelInfer and waits for the end.

        A caller that is cancelled leaves the call running, and its place taken: to cancel a call, or to let it run into
        its timeout, can crash Triton by a race in its gRPC front end (Triton's issues 7368 and 8034).

        Returns:
            The answer, a ModelInferResponse.

        Raises:
            AioRpcError: the call failed.
        """
        ended = asyncio.get_running_loop().create_future()

        def end(call: Any) -> None:
            self._calls.discard(call)
            place.release()
            if not ended.done():
                ended.set_result(None)

        call = self._stub.ModelInfer(request.message, timeout=self._call_timeout_s)
        self._calls.add(call)  # a call that nobody refers to is cancelled
        place.hold()
        call.add_done_callback(end)
        await ended
        return await call


async def run_bounded(jobs: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """Runs jobs side by side, so many at a time.

    Returns:
        Their results, in order.

    Raises:
        Exception: the first that a job raised, after the others are cancelled.
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
    """Marks a background task's error as seen: the next request asks again and reports it."""
    if not task.cancelled():
        task.exception()
