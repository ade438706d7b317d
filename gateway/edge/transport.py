"""A transport that sends the head and body of a response in one write."""

import asyncio
from typing import Any


class CoalescingTransport:
    """A transport that collects what is written in one turn of the event loop.

    uvicorn writes a response's head and body apart, and uvloop sends each at once: two system calls and two packets
    for an answer of a few kilobytes.

    Args:
        transport: The connection's own.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """Return what this class does not change from the connection's transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send the data at the end of this turn of the event loop."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def write_eof(self) -> None:
        """Close the sending side once everything written has been sent."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection once everything written has been sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._transport.is_closing():
            self._transport.write(b"".join(pending))
