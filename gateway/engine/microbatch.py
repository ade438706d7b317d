"""Micro-batching: small requests that arrive at the same time share one inference request.

A call costs the gateway and Triton the same for one short text as for eight. Requests that become ready in the same
turn of the event loop share a call, so none waits for others: a single client is not slowed down, and sixty-four fill
a batch. A wait can be configured for engines that gain more from larger batches than the wait costs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gateway.engine.interface import EmbedBatch, EmbedResult, Slot
from gateway.errors import EngineFaultError
from gateway.types import InputType, Truncate

MAX_TOKENS = 256
"""Estimated tokens of a micro-batch: for longer texts, the cost of a call does not matter."""

EmbedTogether: TypeAlias = Callable[[EmbedBatch, Slot], Awaitable[EmbedResult]]

BatchKey: TypeAlias = tuple[str, str, str | None, InputType, str | None, Truncate, bool]
"""What requests must have in common: public id, fingerprint, and what an inference request carries once."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request whose inference request has yet to be sent.

    Attributes:
        batch: Its items.
        slot: Held until the inference request ends.
        tokens: Estimated, of all items.
        result: Cancelled if the client disconnects.
    """

    batch: EmbedBatch
    slot: Slot
    tokens: int
    result: "asyncio.Future[EmbedResult]"


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """Pending requests of one key, while more may be added.

    Attributes:
        timer: Sends the requests when it fires.
        requests: In order of arrival.
    """

    timer: asyncio.Handle
    requests: list[PendingRequest] = field(default_factory=list)

    def is_full(self, max_items: int) -> bool:
        """Return whether waiting for more requests is pointless."""
        items = sum(len(each.batch.items) for each in self.requests)
        return items >= max_items or sum(each.tokens for each in self.requests) >= MAX_TOKENS


class MicroBatcher:
    """Collects requests for one turn of the event loop, or for a configured time.

    Args:
        embed: Sends one inference request; never cancelled.
        max_items: Most items of a micro-batch.
        wait_ms: Longest that a request waits for others; 0: one turn of the event loop.
    """

    def __init__(self, embed: EmbedTogether, max_items: int, wait_ms: int = 0) -> None:
        self._embed = embed
        self._max_items = max_items
        self._wait_ms = wait_ms
        self._open: dict[BatchKey, OpenBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, batch: EmbedBatch, slot: Slot) -> EmbedResult:
        """Embed a request's items, beside those of other requests.

        Args:
            batch: Small enough for one inference request.
            slot: Of the request.

        Raises:
            GatewayError: This request failed; the failure of another one in the micro-batch does not show here.
        """
        key = (
            *batch.model.identity,
            batch.query,
            batch.input_type,
            batch.prompt,
            batch.truncate,
            batch.check_token_ids,
        )
        result: asyncio.Future[EmbedResult] = asyncio.get_running_loop().create_future()
        if key not in self._open:
            self._open[key] = OpenBatch(self._start_timer(key))
        open_batch = self._open[key]
        open_batch.requests.append(PendingRequest(batch, slot, sum(batch.item_tokens), result))
        if self._wait_ms and open_batch.is_full(self._max_items):
            open_batch.timer.cancel()
            self._send(key)
        return await result

    def _start_timer(self, key: BatchKey) -> asyncio.Handle:
        loop = asyncio.get_running_loop()
        if self._wait_ms:
            return loop.call_later(self._wait_ms / 1e3, self._send, key)
        return loop.call_soon(self._send, key)

    def _send(self, key: BatchKey) -> None:
        """Send the requests of a key, in as many micro-batches as they need."""
        for requests in split(drop_done(self._open.pop(key).requests), self._max_items):
            self._start(requests)

    def _start(self, requests: Sequence[PendingRequest]) -> None:
        """Embed requests in the background; their slots are held from now on."""
        slot = Slot.shared([each.slot for each in requests])
        task = asyncio.ensure_future(self._embed_together(requests, slot))
        self._tasks.add(task)  # the event loop keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _embed_together(self, requests: Sequence[PendingRequest], slot: Slot) -> None:
        """Embed requests together and, after an engine fault, each one alone, so that only the culprit fails."""
        try:
            with slot:
                result = await self._embed(merge([each.batch for each in requests]), slot)
        except EngineFaultError as error:
            if len(requests) == 1:
                fail(requests, error)
            for each in drop_done(requests):
                self._start([each])
        except Exception as error:  # for the requests to handle, whatever it is
            fail(requests, error)
        else:
            distribute(requests, result)


def drop_done(requests: Iterable[PendingRequest]) -> list[PendingRequest]:
    """Return the requests without a result whose clients are still connected."""
    return [each for each in requests if not each.result.done()]


def split(requests: Sequence[PendingRequest], max_items: int) -> list[list[PendingRequest]]:
    """Split requests into micro-batches, in order; one above a limit goes alone."""
    batches: list[list[PendingRequest]] = []
    items = tokens = 0
    for each in requests:
        count = len(each.batch.items)
        if not batches or items + count > max_items or tokens + each.tokens > MAX_TOKENS:
            batches.append([])
            items = tokens = 0
        batches[-1].append(each)
        items += count
        tokens += each.tokens
    return batches


def merge(batches: Sequence[EmbedBatch]) -> EmbedBatch:
    """Return one batch of all items."""
    first = batches[0]
    if len(batches) == 1:
        return first
    items = [item for batch in batches for item in batch.items]
    item_tokens = [tokens for batch in batches for tokens in batch.item_tokens]
    return replace(first, items=items, item_tokens=item_tokens)


def distribute(requests: Sequence[PendingRequest], result: EmbedResult) -> None:
    """Give every request its rows of the result."""
    start = 0
    for each in requests:
        end = start + len(each.batch.items)
        if not each.result.done():
            each.result.set_result(result.rows(start, end))
        start = end


def fail(requests: Iterable[PendingRequest], error: Exception) -> None:
    """Fail every request that is still waiting."""
    for each in drop_done(requests):
        each.result.set_exception(error)
