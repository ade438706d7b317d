"""uvicorn's HTTP/1.1 protocol with limits: bytes and counts of headers, time to send and to read, bytes held."""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.access.limits import group_address
from gateway.api.error_responses import render_error
from gateway.edge.connections import CONNECTIONS, ConnectionTable, Held
from gateway.edge.transport import CoalescingTransport
from gateway.errors import (
    GatewayError,
    HeadersTooLargeError,
    InvalidRequestError,
    OverloadedError,
    RequestTimeoutError,
)

UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})

MAX_HEADERS = 100
MAX_PIPELINED = 16

MAX_OVERHEAD_BYTES = 64 * 1024
"""Of a body's framing, beyond as many bytes as the body itself has: chunks of one byte take six."""

MIN_RECEIVE_RATE = 1024
MIN_SEND_RATE = 32 * 1024
"""Bytes per second, on average, below which a client counts as stalled."""

LINGER_S = 1.0
"""A refused client may go on sending for this long, or the kernel would drop the response that it has yet to read."""

MAX_DISCARDED_BYTES = 16 * 1024 * 1024
"""Of a body that is still arriving after the response."""

RETRY_AFTER_S = 1.0


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        arguments: Of uvicorn's protocol. The lifespan's state holds the `ConnectionTable`.
        options: The same.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._table: ConnectionTable = self.app_state[CONNECTIONS]
        self._settings = self._table.settings
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._refusal: GatewayError | None = None
        self._is_refused = False
        self._reads_head = True
        self._head_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        self._checked_bytes = 0
        self._unsent_bytes = 0

    @property
    def has_served(self) -> bool:
        """Whether a whole request has been received."""
        return self.cycle is not None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over a new connection, or refuse it if there are too many."""
        super().connection_made(cast(asyncio.Transport, CoalescingTransport(transport)))
        self.address = group_address(self.client[0] if self.client else "")
        self._held = Held(self.address)
        if reason := self._table.add(self):
            self._refuse(OverloadedError("too many connections are open", retry_after_s=RETRY_AFTER_S), reason)
        else:
            self._timer = self.loop.call_later(self._settings.header_timeout_s, self._end_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        super().connection_lost(exc)
        self._cancel_timer()
        self.resume_writing()
        self._table.let_go(self._held)
        self._table.remove(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, within the limits."""
        self._unset_keepalive_if_required()
        while data and not self._is_refused:
            room = self._settings.max_header_bytes - self._head_bytes if self._reads_head else len(data)
            self._feed(data[:room])
            data = data[room:]
        if self._timer is None and not self._is_refused and not self._is_between_requests():
            self._start_timer()

    def _feed(self, piece: bytes) -> None:
        """Parse a piece, and refuse the request if it breaks a limit."""
        in_head = self._reads_head
        self._head_bytes += len(piece)  # set back where a head or a request ends
        self._wire_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(piece[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._is_refused:
                error = self._refusal or InvalidRequestError("the request is not valid HTTP/1.1")
                self._refuse(error, "headers" if isinstance(error, HeadersTooLargeError) else "protocol")
            return
        if in_head and self._reads_head and self._head_bytes >= self._settings.max_header_bytes:
            limit = self._settings.max_header_bytes
            self._refuse(HeadersTooLargeError(f"the request's headers are above the limit of {limit} bytes"), "headers")
        elif not self._reads_head and self._wire_bytes > 2 * self._body_bytes + MAX_OVERHEAD_BYTES:
            self._refuse(InvalidRequestError("the request body is sent in too many small chunks"), "protocol")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol as if it did not.

        Java's client and curl --http2 offer HTTP/2 with every request; the parser would skip the body.

        Args:
            rest: What follows the headers.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(InvalidRequestError("the method CONNECT is not supported"), "protocol")
            return
        lines = [b"%s %s HTTP/1.1" % (method, self.url)]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name not in UPGRADE_HEADERS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_headers_complete(self) -> None:
        """Begin to serve a request.

        Raises:
            ValueError: Its headers are too many, or readers could take them differently, or too many requests wait on
                this connection; the parser stops.
        """
        if self.parser.should_upgrade():
            return
        self._cancel_timer()
        self._refusal = find_problem(self.headers, self.parser.get_http_version())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = InvalidRequestError("too many requests wait on this connection")
        if self._refusal is not None:
            raise ValueError
        self._reads_head = False
        self._head_bytes = self._wire_bytes = self._body_bytes = self._checked_bytes = 0
        super().on_headers_complete()
        self.headers = []  # for the trailer of a chunked body, which must not pass for headers

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body if there is room for it."""
        self._body_bytes += len(body)
        if self._is_refused:
            return
        if self.cycle.response_complete:
            if self._body_bytes > MAX_DISCARDED_BYTES:
                self.drop("protocol")
            return
        super().on_body(body)
        if not self._table.hold(self._held, len(body)):
            self._refuse(
                OverloadedError("too many request bodies are arriving", retry_after_s=RETRY_AFTER_S), "buffers"
            )

    def on_message_complete(self) -> None:
        """End a request's body; what follows is another request."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._cancel_timer()
        self._reads_head = True
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one's body."""
        self._table.let_go(self._held)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client time to read the response."""
        super().pause_writing()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._table.mark_unsent(self, self._unsent_bytes)
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop waiting: the client has read most of the response."""
        super().resume_writing()
        self._table.mark_sent(self)
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long, read or not."""
        if self.transport.get_write_buffer_size():
            self.drop("slow reader")
        else:
            super().timeout_keep_alive_handler()

    def _is_between_requests(self) -> bool:
        return self._reads_head and not self._head_bytes

    def _start_timer(self) -> None:
        if self._reads_head:
            self._timer = self.loop.call_later(self._settings.header_timeout_s, self._end_head)
        else:
            self._timer = self.loop.call_later(self._settings.receive_timeout_s, self._check_body)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_head(self) -> None:
        """End a connection whose request's headers have not arrived in time."""
        if self._head_bytes:
            self._refuse(RequestTimeoutError("the request's headers did not arrive in time"), "timeout")
        else:
            self.drop("timeout")

    def _check_body(self) -> None:
        """End a request whose body arrives too slowly."""
        self._timer = None
        arrived, self._checked_bytes = self._body_bytes - self._checked_bytes, self._body_bytes
        waits_for_us = self.flow.read_paused
        if waits_for_us or arrived >= MIN_RECEIVE_RATE * self._settings.receive_timeout_s:
            self._start_timer()
        else:
            self._refuse(RequestTimeoutError("the request body did not arrive in time"), "timeout")

    def _watch_reader(self) -> None:
        self._send_timer = self.loop.call_later(self._settings.send_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        """End a connection whose client reads too slowly."""
        before, self._unsent_bytes = self._unsent_bytes, self.transport.get_write_buffer_size()
        if before - self._unsent_bytes < MIN_SEND_RATE * self._settings.send_timeout_s:
            self.drop("slow reader")
        else:
            self._watch_reader()

    def _refuse(self, error: GatewayError, reason: str) -> None:
        """Respond with an error, unless another response has begun, and close the connection."""
        self._is_refused = True
        self._cancel_timer()
        self._table.note_refusal(reason, self.address)
        cycle = self.cycle
        if self._reads_head and not self.is_idle:  # the request before is still being served
            cycle.keep_alive = False
            return
        self._table.let_go(self._held)
        if not self.pipeline and (self.is_idle if self._reads_head else not cycle.response_started):
            self.transport.write(render_bytes(error))
        if not self.is_idle:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()  # and discard
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def drop(self, reason: str) -> None:
        """Close the connection at once, for a reason that metrics and log show."""
        self._is_refused = True
        self._table.note_refusal(reason, self.address)
        self.transport.abort()


def find_problem(headers: list[tuple[bytes, bytes]], http_version: str) -> GatewayError | None:
    """Return what is wrong with headers: too many, or such that proxies and servers could read them differently."""
    if len(headers) > MAX_HEADERS:
        return HeadersTooLargeError(f"the request has more than {MAX_HEADERS} headers")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return InvalidRequestError("the only supported Transfer-Encoding is chunked")
    if hosts != 1 and (hosts or http_version == "1.1"):
        return InvalidRequestError("the request must have one Host header")
    return None


def render_bytes(error: GatewayError) -> bytes:
    """Return an error as a whole HTTP response."""
    response = render_error(error)
    headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + headers + b"connection: close\r\n\r\n" + bytes(response.body)
