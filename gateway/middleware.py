"""Around every request: id, deadline, timing headers, log line, and the last resort for errors nobody expected."""

import logging
import re
import secrets
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access import ANYBODY
from gateway.deadline import Deadline, DeadlineTimer
from gateway.error_responses import render_error, status_of
from gateway.errors import DeadlineError, GatewayError, RequestTimeoutError
from gateway.metrics import Metrics
from gateway.record import RequestRecord, attach_record

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("gateway.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""What a client may call its request; anything else could forge log lines."""

CLIENT_GONE = 499
"""Logged as the status of a request whose client did not wait; nothing was sent."""


class RecordMiddleware:
    """Pure ASGI middleware that keeps a `RequestRecord`."""

    def __init__(self, app: ASGIApp, request_timeout_s: float, metrics: Metrics) -> None:
        """Wraps an application.

        Args:
            app: what answers.
            request_timeout_s: seconds from arrival to answer.
            metrics: where requests are counted.
        """
        self._app = app
        self._request_timeout_s = request_timeout_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; no exception of the application gets past here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(read_request_id(scope), Deadline.after(self._request_timeout_s))
        attach_record(scope, record)
        self._metrics.in_flight.inc()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(message, record)
            await send(message)

        failure: GatewayError | None = None
        try:
            with DeadlineTimer(record.deadline):
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_GONE
        except DeadlineError as error:
            failure = error if record.has_body else RequestTimeoutError("the request body did not arrive in time")
        except Exception:
            logger.exception("request %s failed", record.request_id)
            failure = GatewayError("the server failed")
        try:
            if failure and not status:
                record.error_type = status_of(failure).type
                await render_error(failure, record.dialect)(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.observe(record, status)
            log_request(scope, record, status)


def read_request_id(scope: Scope) -> str:
    """The client's `x-request-id` if it is plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(16)


def add_headers(message: Message, record: RequestRecord) -> None:
    """Adds the request's id and, to an answer with vectors, what it took; times in milliseconds."""
    headers = {"x-request-id": record.request_id}
    if record.result is not None:
        headers["x-total-time"] = f"{record.age_s() * 1e3:.2f}"
        headers["x-queue-time"] = f"{record.stage_s['admission'] * 1e3:.2f}"
        headers["x-inference-time"] = f"{record.stage_s['inference'] * 1e3:.2f}"
        headers["x-compute-tokens"] = str(record.result.usage.total_tokens)
    message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in headers.items())]


def log_request(scope: Scope, record: RequestRecord, status: int) -> None:
    """Writes the request's one line."""
    if not access_logger.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {
        "request_id": record.request_id,
        "method": scope["method"],
        "route": record.route,
        "status": status,
        "total_ms": round(record.age_s() * 1e3, 2),
    }
    if record.caller is not ANYBODY:
        line["caller"] = record.caller.name
    if record.dialect.name:
        line["dialect"] = record.dialect.name
    for name in ("model", "items", "user_hash", "error_type"):
        value = getattr(record, name)
        if value:
            line[name] = value
    if record.result is not None:
        line["tokens"] = record.result.usage.total_tokens
        line["inference_ms"] = round(record.stage_s["inference"] * 1e3, 2)
    access_logger.info(orjson.dumps(line).decode())
