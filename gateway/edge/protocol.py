"""uvicorn's HTTP/1.1 protocol with limits: bytes and counts of headers, time to send and to read, bytes held."""

import asyncio
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.access.limits import group_address
from gateway.api.error_responses import render_error
from gateway.api.middleware import read_request_id
from gateway.edge.connections import CONNECTIONS, ConnectionTable, Held
from gateway.edge.headers import find_problem, identify
from gateway.edge.refusals import RecentRefusal
from gateway.edge.transport import CoalescingTransport
from gateway.errors import (
    GatewayError,
    HeadersTooLargeError,
    InvalidRequestError,
    OverloadedError,
    RequestTimeoutError,
)

UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})

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
        self._recent: RecentRefusal | None = None
        self._suspect = bytearray()
        self._has_served = False
        self._reads_head = True
        self._head_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        self._checked_bytes = 0
        self._unsent_bytes = 0

    @property
    def has_served(self) -> bool:
        """Whether a whole request has been received."""
        return self._has_served

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
        if self.is_idle and self.parser.get_method() == b"POST":
            self._recent = self._table.refusals.find(self.address, self.url, self.headers)
        if self._recent is None:
            self._begin()

    def _begin(self) -> None:
        """Pass a request on to the application."""
        super().on_headers_complete()
        self.headers = []  # for the trailer of a chunked body, which must not pass for headers

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body if there is room for it."""
        self._body_bytes += len(body)
        if self._is_refused:
            return
        if self._recent is not None:
            self._suspect += body  # which its headers have announced as short
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
        self._has_served = True
        if self._recent is not None and not self._repeat_refusal(self._recent):
            self._pass_suspect()
        if self._recent is None:
            super().on_message_complete()
        self._recent = None
        self._cancel_timer()
        self._reads_head = True
        self._head_bytes = 0

    def _pass_suspect(self) -> None:
        """Pass a request on that was held back since others like it had been refused."""
        body, self._suspect, self._recent = bytes(self._suspect), bytearray(), None
        self._body_bytes -= len(body)
        self._begin()
        self.on_body(body)

    def _repeat_refusal(self, recent: RecentRefusal) -> bool:
        """Refuse a request as another one was a moment ago, if that holds for it; return whether it does."""
        if not recent.holds_for(bytes(self._suspect)):
            return False
        self._suspect = bytearray()
        stays_open = self.parser.should_keep_alive()
        ending = b"" if stays_open else b"connection: close\r\n"
        self.transport.write(recent.render(read_request_id(cast(Scope, self.scope)), ending))
        self._table.refusals.count(recent)
        self._table.note_refusal("overload", self.address)
        if stays_open:
            self.on_response_complete()
        else:
            self.transport.close()
        return True

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one's body."""
        self._table.let_go(self._held)
        self._note_refusal()
        super().on_response_complete()

    def _note_refusal(self) -> None:
        """Remember that the application has refused a request, for those that follow."""
        if self.cycle is None or self.pipeline or not self._reads_head:
            return
        scope = self.cycle.scope
        refusal = scope["state"].pop("refusal", None)
        if refusal is not None and (key := identify(self.address, self.url, scope["headers"])):
            self._table.refusals.note(key, refusal, self._body_bytes)

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
        is_between = self._reads_head or self._recent is not None
        if not self.pipeline and (self.is_idle if is_between else not cycle.response_started):
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


def render_bytes(error: GatewayError) -> bytes:
    """Return an error as a whole HTTP response."""
    response = render_error(error)
    headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + headers + b"connection: close\r\n\r\n" + bytes(response.body)
