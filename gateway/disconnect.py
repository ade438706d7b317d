"""Stops working for a client that has gone."""

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

WATCH_AFTER_S = 0.05
"""Work that takes no longer is not worth a task that watches the connection: what Triton has begun, it ends anyway."""


class DisconnectWatch:
    """Cancels the work inside soon after the client closes the connection; a context manager."""

    def __init__(self, request: Request) -> None:
        """Watches nothing yet.

        Args:
            request: its body has been read to the end, so that only a disconnect is left to receive.
        """
        self._request = request
        self._watch: asyncio.Task[Message] | None = None
        self._gone = False

    def __enter__(self) -> None:
        """Sets the timer."""
        self._work = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start_watch)

    def _start_watch(self) -> None:
        self._watch = asyncio.ensure_future(self._request.receive())
        self._watch.add_done_callback(self._cancel_work)

    def _cancel_work(self, watched: "asyncio.Task[Message]") -> None:
        if self._work is not None and not watched.cancelled():
            self._gone = True
            self._work.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the watch.

        Raises:
            ClientDisconnect: the client went away, and the work was cancelled.
        """
        self._timer.cancel()
        if self._watch is not None:
            self._watch.remove_done_callback(self._cancel_work)
            self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError:
            raise ClientDisconnect from None
