"""Joins small requests that come at the same time into one inference request.

A call costs the gateway and Triton the same for one short text as for eight. Requests join that are ready in the same
turn of the event loop, so nobody waits for company: one client has none, and sixty-four have plenty. A wait can be set,
for an engine that gains more by larger batches than the wait costs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gateway.admission import share_places
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import EmbedBatch, Embedded
from gateway.errors import EngineFaultError
from gateway.items import InputType, Truncate

MAX_JOINED_TOKENS = 256
"""Estimated tokens of requests that are joined: beside the work of longer texts, a call costs nothing."""

Kind: TypeAlias = tuple[str, InputType, Truncate]
"""What requests must have in common: the model's public id, and the options that one inference request has once."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request whose inference request has yet to be sent.

    Attributes:
        batch: its items.
        tokens: estimated.
        answer: to be set, unless its client has left.
    """

    batch: EmbedBatch
    tokens: int
    answer: "asyncio.Future[Embedded]"


@dataclass(frozen=True, slots=True)
class Gathering:
    """Requests of one kind that wait for others.

    Attributes:
        timer: ends the wait.
        requests: in the order in which they came.
    """

    timer: asyncio.Handle
    requests: list[Waiting] = field(default_factory=list)

    def is_full(self, max_items: int) -> bool:
        """Whether they need not wait for more."""
        items = sum(len(each.batch.items) for each in self.requests)
        return items >= max_items or sum(each.tokens for each in self.requests) >= MAX_JOINED_TOKENS


class Joiner:
    """Collects requests for one turn of the event loop, or for a time."""

    def __init__(self, embed: Callable[[EmbedBatch], Awaitable[Embedded]], max_items: int, wait_ms: int = 0) -> None:
        """Has none yet.

        Args:
            embed: sends one inference request; nobody cancels it.
            max_items: most items of requests that are joined.
            wait_ms: longest that a request waits for others; 0: one turn of the event loop.
        """
        self._embed = embed
        self._max_items = max_items
        self._wait_ms = wait_ms
        self._gatherings: dict[Kind, Gathering] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, batch: EmbedBatch) -> Embedded:
        """Embeds a request's items, beside those of others.

        Args:
            batch: fits into one inference request.

        Raises:
            GatewayError: the request failed; that another one did is none of its business.
        """
        kind = (batch.model.public_id, batch.input_type, batch.truncate)
        tokens = sum(estimate_tokens(item, batch.model) for item in batch.items)
        answer: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        if kind not in self._gatherings:
            self._gatherings[kind] = Gathering(self._start_wait(kind))
        gathering = self._gatherings[kind]
        gathering.requests.append(Waiting(batch, tokens, answer))
        if self._wait_ms and gathering.is_full(self._max_items):
            gathering.timer.cancel()
            self._send(kind)
        return await answer

    def _start_wait(self, kind: Kind) -> asyncio.Handle:
        """Has them sent when it is over."""
        loop = asyncio.get_running_loop()
        if self._wait_ms:
            return loop.call_later(self._wait_ms / 1e3, self._send, kind)
        return loop.call_soon(self._send, kind)

    def _send(self, kind: Kind) -> None:
        """Sends what has come."""
        for part in cut(still_waiting(self._gatherings.pop(kind).requests), self._max_items):
            self._start(part)

    def _start(self, part: Sequence[Waiting]) -> None:
        """Takes a share in the places of requests, which they still hold, and answers them in the background."""
        task = asyncio.ensure_future(self._answer(part, join([each.batch for each in part])))
        self._tasks.add(task)  # the event loop keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, part: Sequence[Waiting], joined: EmbedBatch) -> None:
        """Embeds requests together; if that breaks, each alone, so that only the one that broke it fails."""
        try:
            with joined.place:
                embedded = await self._embed(joined)
        except EngineFaultError as error:
            if len(part) == 1:
                fail(part, error)
            for each in still_waiting(part):
                self._start([each])
        except Exception as error:  # theirs to handle, whatever it is
            fail(part, error)
        else:
            hand_out(part, embedded)


def still_waiting(requests: Iterable[Waiting]) -> list[Waiting]:
    """Those that have no answer and whose clients have not left."""
    return [each for each in requests if not each.answer.done()]


def cut(waiting: Iterable[Waiting], max_items: int) -> Iterator[list[Waiting]]:
    """Cuts requests into parts that are joined, in order; one above a limit goes alone."""
    part: list[Waiting] = []
    items = tokens = 0
    for each in waiting:
        count = len(each.batch.items)
        if part and (items + count > max_items or tokens + each.tokens > MAX_JOINED_TOKENS):
            yield part
            part, items, tokens = [], 0, 0
        part.append(each)
        items += count
        tokens += each.tokens
    if part:
        yield part


def join(batches: Sequence[EmbedBatch]) -> EmbedBatch:
    """One batch of all items; its place holds all places until it is released."""
    items = batches[0].items if len(batches) == 1 else [item for batch in batches for item in batch.items]
    return replace(batches[0], items=items, place=share_places([batch.place for batch in batches]))


def hand_out(part: Sequence[Waiting], embedded: Embedded) -> None:
    """Gives every request its rows of a joined answer."""
    start = 0
    for each in part:
        end = start + len(each.batch.items)
        if not each.answer.done():
            each.answer.set_result(embedded.cut(start, end))
        start = end


def fail(part: Iterable[Waiting], error: Exception) -> None:
    """Lets every request fail."""
    for each in still_waiting(part):
        each.answer.set_exception(error)
