"""Draining: after a signal to stop, readiness is false for a while before the listening socket closes."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def drain_on_signals(begin: Callable[[], None], drain_s: float) -> Iterator[None]:
    """Put a drain before what SIGTERM and SIGINT do; another signal ends it, and Ctrl-C twice cuts requests off.

    Without the drain, a load balancer would send requests to a closed socket until it asks for readiness again.

    Args:
        begin: Makes readiness false.
        drain_s: Seconds until the handler that was installed before, which is uvicorn's, is called.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return
    loop = asyncio.get_running_loop()
    inner = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not seen:
            begin()
            loop.call_soon_threadsafe(loop.call_later, drain_s, stop, number)
        elif signal.SIGINT in seen and number == signal.SIGINT:
            stop(number)  # uvicorn cuts off at the second SIGINT
            stop(number)
        elif number in seen:  # a worker gets Ctrl-C from the terminal, and as SIGTERM from its parent: that is one
            stop(number)
        seen.append(number)

    def stop(number: int) -> None:
        handler = inner[signal.Signals(number)]
        if callable(handler):
            handler(number, None)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in inner.items():
            signal.signal(number, handler)
