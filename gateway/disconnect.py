"""Stops working for a client that has gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message


@asynccontextmanager
async def cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancels the work inside as soon as the client closes the connection.

    Args:
        request: its body has been read to the end, so that only a disconnect is left to receive.

    Raises:
        ClientDisconnect: the client went away, and the work was cancelled.
    """
    work = asyncio.current_task()
    watch: asyncio.Task[Message] = asyncio.ensure_future(request.receive())
    gone = False

    def cancel_work(watched: "asyncio.Task[Message]") -> None:
        nonlocal gone
        if work is not None and not watched.cancelled():
            gone = True
            work.cancel()

    watch.add_done_callback(cancel_work)
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            raise ClientDisconnect from None
        raise
    finally:
        watch.remove_done_callback(cancel_work)
        watch.cancel()
