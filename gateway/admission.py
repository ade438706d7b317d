"""How much work is taken on at a time: by cost, first come first served, with a bounded queue.

Without it a burst would wait in Triton, where a full queue can hang an ensemble, and all answers would come too late.
Requests with images have a gate of their own, so that texts do not queue behind pages.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from gateway.errors import OverloadedError
from gateway.items import Item, PicturedItem
from gateway.settings import Settings

RETRY_AFTER_S = 2.0


class Place:
    """Room taken in a gate, given back once the last of its holders has let go.

    A client that leaves lets go at once; work of its that cannot be stopped holds on until it ends.
    """

    def __init__(self, give_back: Callable[[], None] = lambda: None) -> None:
        """Takes the room, with one holder.

        Args:
            give_back: called when nobody holds it any more; without it the place is in no gate.
        """
        self._give_back = give_back
        self._holders = 1

    def __enter__(self) -> "Place":
        """Stands for its first holder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of it."""
        self.release()

    def hold(self) -> None:
        """Adds a holder."""
        self._holders += 1

    def release(self) -> None:
        """Takes one away."""
        self._holders -= 1
        if not self._holders:
            self._give_back()


def share_places(places: Sequence[Place]) -> Place:
    """One place for work that several share: until it is released, it is one more holder of each."""
    for place in places:
        place.hold()

    def release() -> None:
        for place in places:
            place.release()

    return Place(release)


class Admission:
    """The gates of one process."""

    def __init__(self, settings: Settings) -> None:
        """Opens a gate for texts and one for images.

        Args:
            settings: their limits.
        """
        self.text = AdmissionGate(settings.max_text_tokens_inside, settings.max_text_tokens_waiting)
        self.image = AdmissionGate(settings.max_image_tokens_inside, settings.max_image_tokens_waiting)

    def gate_of(self, items: Sequence[Item]) -> "AdmissionGate":
        """The gate for a request's items."""
        has_image = any(isinstance(item, PicturedItem) for item in items)
        return self.image if has_image else self.text

    def check_room(self) -> None:
        """Refuses any request, before it is read, while both queues are full.

        Raises:
            OverloadedError: they are.
        """
        if self.text.is_full():
            self.image.check_room()


class AdmissionGate:
    """Lets requests through while the cost of those inside stays below a limit."""

    def __init__(self, max_inside: int, max_waiting: int) -> None:
        """Opens the gate.

        Args:
            max_inside: cost of all requests inside; one alone may cost more.
            max_waiting: cost of all requests that wait.
        """
        self._max_inside = max_inside
        self._max_waiting = max_waiting
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.inside = 0
        self.waiting = 0

    def check_room(self, cost: int = 0) -> None:
        """Refuses work that would only wait too long.

        Args:
            cost: of the request, if it is known.

        Raises:
            OverloadedError: the queue has no room for it.
        """
        if self.is_full(cost):
            raise OverloadedError("too many requests are waiting", retry_after_s=RETRY_AFTER_S)

    def is_full(self, cost: int = 0) -> bool:
        """Whether the queue has no room for that much; an empty one has, so that no request is too large for ever."""
        return bool(self._queue) and self.waiting + max(cost, 1) > self._max_waiting

    async def enter(self, cost: int) -> Place:
        """Waits for its turn, for as long as it is not cancelled.

        Args:
            cost: estimated tokens.

        Returns:
            The place, to be released.

        Raises:
            OverloadedError: the queue has no room for it.
        """
        if self._queue or not self._has_place(cost):
            await self._wait(cost)
        else:
            self.inside += cost
        return Place(lambda: self._leave(cost))

    def _leave(self, cost: int) -> None:
        self.inside -= cost
        self._admit_waiting()

    def _has_place(self, cost: int) -> bool:
        return self.inside == 0 or self.inside + cost <= self._max_inside

    async def _wait(self, cost: int) -> None:
        """Queues until `_admit_waiting` lets the request in."""
        self.check_room(cost)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (cost, turn)
        self._queue.append(entry)
        self.waiting += cost
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in at the very moment it stopped waiting
                self.inside -= cost
            elif entry in self._queue:
                self._queue.remove(entry)
                self.waiting -= cost
            self._admit_waiting()
            raise

    def _admit_waiting(self) -> None:
        """Lets in those at the head of the queue that have a place now, and drops those there that wait no more."""
        while self._queue:
            cost, turn = self._queue[0]
            if not turn.cancelled() and not self._has_place(cost):
                break
            self._queue.popleft()
            self.waiting -= cost
            if not turn.cancelled():
                self.inside += cost
                turn.set_result(None)
