"""Admission control: how much the engine works on at a time, and whose turn is next.

What waits here can still be reordered or refused; in Triton's queues it could not. So the engine gets as much as it
finishes within a target latency, whatever its speed, and the rest waits for a fair turn: clients share the engine
equally (or by the weight of their key), and so do the requests of one client. Turns are those of inference requests,
into which a large request is cut, so that a small one waits for a few of them and not for the whole.

Start-time fair queueing: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", SIGCOMM 1996.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import TracebackType
from typing import Literal, Self, TypeAlias

from gateway.engine import Slot
from gateway.errors import OverloadedError
from gateway.settings import Settings
from gateway.types import Client, Deadline

MIN_CONCURRENCY = 2
"""Inference requests of a client that are always admitted: one that runs, and the next."""

MIN_CONCURRENCY_OF_ALL = 4
"""The same of all clients together, so that nobody waits until somebody else's slow ones are done."""

INITIAL_LIMIT = 8192
"""Estimated tokens in flight, before the engine's speed is known."""

GROWTH = 0.2
"""By how much the limit grows in the time that the engine takes for as much as is in flight, if that is in time."""

MAX_SHRINKAGE = 0.3
"""What the limit is multiplied with at least, once in that time, if it is not."""

RATE_WINDOW_S = 0.25
RATE_MEMORY = 0.8
"""The measured rate of the engine is a moving average over busy times of this length, which keep this weight."""

MIN_CHUNK_TOKENS = 256

MIN_RETRY_AFTER_S = 1.0

MIN_PATIENCE_S = 5.0
STRETCH = 40
"""A request may wait for so long, and in addition so many times as long as it takes itself. Who asks for little is
better served by an early refusal, and thousands of small requests that wait serve nobody."""

WorkKind: TypeAlias = Literal["text", "image", "slow_image"]
"""Texts do not wait for images, and images not for those that take long to decode."""

_NUMBERS = count()


class Admission:
    """The gates of one worker process: for each model one of every kind of work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.gates: dict[tuple[str, str], AdmissionGate] = {}

    def gate_of(self, model: str, kind: WorkKind) -> "AdmissionGate":
        """Return the gate of a request.

        Args:
            model: Public id of a served model.
            kind: Of its work.
        """
        key = (model, kind)
        gate = self.gates.get(key)
        if gate is None:
            settings = self._settings
            most = settings.max_text_tokens_in_flight if kind == "text" else settings.max_image_tokens_in_flight
            gate = self.gates[key] = AdmissionGate(most, settings.engine_latency_target_s, settings.max_queue_s)
        return gate

    def keep(self, models: Container[str]) -> None:
        """Forget the gates of all other models; what has entered them goes on.

        Args:
            models: Public ids.
        """
        self.gates = {key: gate for key, gate in self.gates.items() if key[0] in models}

    def check_room(self, client: Client) -> None:
        """Refuse any request of a client, before it is read, while every gate would refuse even the smallest.

        Raises:
            OverloadedError: They would.
        """
        refusals = [gate.find_refusal(client, 1) for gate in self.gates.values()]
        if refusals and all(refusals):
            raise min(filter(None, refusals), key=lambda refusal: refusal.retry_after_s or 0)


@dataclass(eq=False, slots=True)
class Share:
    """What is waiting for one client, or for one of its requests.

    Attributes:
        weight: Of the client among clients.
        start: Its start tag, the cost that it has been served by its weight: who has the least is next.
        requests: Of the client, that are under way.
        backlog: Estimated tokens of the client's requests under way, whether in flight or waiting.
        active: Inference requests of the client, in flight.
        latest_start: Of the client's requests, the start tag of the one that was served last.
        ready: A client's requests that wait, the one with the least `start` first.
        waiting: A request's inference requests that wait: their cost, and what admits them.
    """

    weight: float
    start: float
    requests: int = 0
    backlog: int = 0
    active: int = 0
    latest_start: float = 0.0
    ready: list[tuple[float, int, "Share"]] = field(default_factory=list)
    waiting: deque[tuple[int, "asyncio.Future[None]"]] = field(default_factory=deque)


class Ticket:
    """A request's right to a share of the engine, until the end of its block.

    Args:
        gate: That the request goes through.
        client: Who sends it.
        cost: Estimated tokens of all its inference requests.

    Attributes:
        client: Who sends the request.
        cost_left: Of those that have not been admitted.
        entered: Estimated tokens of those that have.
        waited_s: How long the first of them waited; None before it is admitted.
    """

    __slots__ = ("_client", "_gate", "_request", "_started_s", "client", "cost_left", "entered", "waited_s")

    def __init__(self, gate: "AdmissionGate", client: Client, cost: int) -> None:
        self._gate = gate
        self.client = client
        self.cost_left = cost
        self.entered = 0
        self.waited_s: float | None = None

    def __enter__(self) -> Self:
        """Join the requests of the client."""
        self._client = self._gate.join(self)
        self._request = Share(1.0, self._client.latest_start)
        self._started_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        self._gate.leave(self, self._client)

    @property
    def chunk_tokens(self) -> int:
        """Estimated tokens that the engine computes within half its target latency."""
        return self._gate.chunk_tokens

    async def enter(self, cost: int) -> Slot:
        """Wait for the turn of an inference request, for as long as the caller is not cancelled.

        Args:
            cost: Estimated tokens.

        Returns:
            The slot, for the caller to release.
        """
        slot = await self._gate.enter(self._client, self._request, cost)
        self.cost_left -= cost
        self.entered += cost
        if self.waited_s is None:
            self.waited_s = time.monotonic() - self._started_s
        return slot


class AdmissionGate:
    """Admits inference requests to one kind of work of one model.

    Args:
        max_in_flight: Most estimated tokens in flight; the limit in force adapts to the engine, and is lower.
        latency_target_s: What an inference request should take, if there are many.
        max_queue_s: Longest expected wait of a request that is not refused; small ones are refused sooner.

    Attributes:
        limit: Estimated tokens in flight that are allowed at the moment.
        in_flight: Estimated tokens in flight.
        backlog: Estimated tokens of the requests under way, whether in flight or waiting.
    """

    def __init__(self, max_in_flight: int, latency_target_s: float, max_queue_s: float) -> None:
        self._max_in_flight = max_in_flight
        self._latency_target_s = latency_target_s
        self._max_queue_s = max_queue_s
        self.limit = float(min(INITIAL_LIMIT, max_in_flight))
        self.in_flight = 0
        self.backlog = 0
        self._active = 0
        self._weight = 0.0
        self._clients: dict[str, Share] = {}
        self._ready: list[tuple[float, int, Share]] = []
        self._latest_start = 0.0
        self._is_saturated = False
        self._shrunk_at_s = 0.0
        self._rate: float | None = None
        self._window_cost = 0
        self._window_s = 0.0
        self._busy_since_s = 0.0

    @property
    def queued(self) -> int:
        """Estimated tokens that wait."""
        return max(0, self.backlog - self.in_flight)

    @property
    def chunk_tokens(self) -> int:
        """Estimated tokens that the engine computes within half its target latency."""
        if self._rate is None:
            return self._max_in_flight
        return max(MIN_CHUNK_TOKENS, int(self._rate * self._latency_target_s / 2))

    def find_refusal(self, client: Client, cost: int, deadline: Deadline | None = None) -> OverloadedError | None:
        """Return the error for a request that would have to wait too long, or None.

        Args:
            client: Who sends it.
            cost: Estimated tokens of the request.
            deadline: Of the request.
        """
        if self._rate is None or not self._clients:
            return None
        # While this request is under way, no other one of its client is served more than it, and no other client, by
        # its weight, more than this one.
        share, weight, served = self._clients.get(client.name), self._weight, cost
        if share is None:
            weight += client.weight
        else:
            served += min(share.backlog, cost * share.requests)
        expected_s = min(self.backlog, served * weight / client.weight) / self._rate
        patience_s = min(self._max_queue_s, MIN_PATIENCE_S + STRETCH * cost / self._rate)
        if deadline is not None:
            patience_s = min(patience_s, deadline.remaining_s())
        if expected_s <= patience_s:
            return None
        return OverloadedError(
            "too many requests are waiting", retry_after_s=max(MIN_RETRY_AFTER_S, expected_s - patience_s)
        )

    def check_room(self, client: Client, cost: int, deadline: Deadline | None = None) -> None:
        """Refuse a request that would have to wait too long; arguments as those of `find_refusal`.

        Raises:
            OverloadedError: It would.
        """
        refusal = self.find_refusal(client, cost, deadline)
        if refusal is not None:
            raise refusal

    def admit(self, client: Client, cost: int, deadline: Deadline | None = None) -> Ticket:
        """Give a request its share of the engine.

        Args:
            client: Who sends it.
            cost: Estimated tokens of all its inference requests.
            deadline: Of the request.

        Returns:
            A context manager: the share ends with its block.

        Raises:
            OverloadedError: It would have to wait too long.
        """
        self.check_room(client, cost, deadline)
        return Ticket(self, client, cost)

    def join(self, ticket: Ticket) -> Share:
        """Count a request; return its client's share."""
        client = self._clients.get(ticket.client.name)
        if client is None:
            client = self._clients[ticket.client.name] = Share(ticket.client.weight, self._latest_start)
            self._weight += client.weight
        client.requests += 1
        client.backlog += ticket.cost_left
        self.backlog += ticket.cost_left
        return client

    def leave(self, ticket: Ticket, client: Share) -> None:
        """Forget a request; what the engine still works on for it counts until that is done."""
        self.backlog -= ticket.cost_left
        client.backlog -= ticket.cost_left
        client.requests -= 1
        if not client.requests:
            del self._clients[ticket.client.name]
            self._weight = self._weight - client.weight if self._clients else 0.0

    async def enter(self, client: Share, request: Share, cost: int) -> Slot:
        """Wait for a turn; see `Ticket.enter`."""
        if self._ready or not self._fits(client, cost):
            await self._wait(client, request, cost)
        else:
            self._serve(client, request, cost)
        started_s = time.monotonic()
        return Slot(lambda: self._leave(client, cost, started_s), partial(self._refund, client, request))

    def _refund(self, client: Share, request: Share, cost: int) -> None:
        """Serve a client and its request earlier: they have used less than was estimated."""
        client.start -= cost / client.weight
        request.start -= cost

    def _fits(self, client: Share, cost: int) -> bool:
        is_among_first = client.active < MIN_CONCURRENCY and self._active < MIN_CONCURRENCY_OF_ALL
        return is_among_first or self.in_flight + cost <= self.limit

    def _serve(self, client: Share, request: Share, cost: int) -> None:
        """Account for an inference request that goes to the engine."""
        if not self._active:
            self._busy_since_s = time.monotonic()
        self._active += 1
        client.active += 1
        self.in_flight += cost
        self._latest_start = max(self._latest_start, client.start)
        client.latest_start = max(client.latest_start, request.start)
        client.start += cost / client.weight
        request.start += cost

    async def _wait(self, client: Share, request: Share, cost: int) -> None:
        """Queue until `_admit_waiting` admits the inference request."""
        self._is_saturated = True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not request.waiting:
            if not client.ready:
                client.start = max(client.start, self._latest_start)
                heapq.heappush(self._ready, (client.start, next(_NUMBERS), client))
            heapq.heappush(client.ready, (request.start, next(_NUMBERS), request))
        request.waiting.append((cost, turn))
        self._admit_waiting()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # admitted in the very moment of the cancellation
                self._active -= 1
                client.active -= 1
                self.in_flight -= cost
            self._admit_waiting()
            raise

    def _admit_waiting(self) -> None:
        """Admit inference requests in fair order while they fit, dropping those of clients that have left."""
        while self._ready:
            client = self._ready[0][2]
            request = client.ready[0][2]
            while request.waiting and request.waiting[0][1].cancelled():
                request.waiting.popleft()
            if request.waiting:
                cost, turn = request.waiting[0]
                if not self._fits(client, cost):
                    return
                request.waiting.popleft()
                self._serve(client, request, cost)
                turn.set_result(None)
            heapq.heappop(client.ready)
            if request.waiting:
                heapq.heappush(client.ready, (request.start, next(_NUMBERS), request))
            heapq.heappop(self._ready)
            if client.ready:
                heapq.heappush(self._ready, (client.start, next(_NUMBERS), client))
        self._is_saturated = False

    def _leave(self, client: Share, cost: int, started_s: float) -> None:
        """Account for an inference request that the engine has finished, and adapt the limit."""
        now_s = time.monotonic()
        self._active -= 1
        client.active -= 1
        self.in_flight -= cost
        self.backlog -= cost
        client.backlog -= cost
        self._measure_rate(cost, now_s)
        took_s = now_s - started_s
        if took_s <= self._latency_target_s:
            if self._is_saturated:
                self.limit = min(self.limit + GROWTH * cost, self._max_in_flight)
        elif self._shrunk_at_s < started_s:
            self.limit = max(self.limit * max(self._latency_target_s / took_s, MAX_SHRINKAGE), 1.0)
            self._shrunk_at_s = now_s
        self._admit_waiting()

    def _measure_rate(self, cost: int, now_s: float) -> None:
        """Update the rate at which the engine works if it is given enough, in estimated tokens per second."""
        self._window_cost += cost
        self._window_s += now_s - self._busy_since_s
        self._busy_since_s = now_s
        if self._window_s < RATE_WINDOW_S:
            return
        rate = self._window_cost / self._window_s
        if self._is_saturated:
            self._rate = rate if self._rate is None else RATE_MEMORY * self._rate + (1 - RATE_MEMORY) * rate
        elif self._rate is not None:
            self._rate = max(self._rate, rate)  # it could do more
        self._window_cost, self._window_s = 0, 0.0
