"""What surrounds every handler: request context, deadline, access control, headers, access log, last-resort errors."""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeAlias

import orjson
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access import ANONYMOUS, AccessPolicy, OpenAccess
from gateway.api.client_address import read_client_address
from gateway.api.context import Dialect, RequestContext, attach_context, context_of
from gateway.api.error_responses import handle_gateway_error, render_error, status_of
from gateway.core.checks import FINGERPRINT_HEADER
from gateway.core.metrics import Metrics
from gateway.errors import DeadlineError, EngineUnavailableError, GatewayError, RequestTimeoutError
from gateway.settings import IPNetwork
from gateway.types import Deadline

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("gateway.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
"""Request ids accepted from clients; anything else could forge log lines."""

MAX_INDICES_IN_HEADER = 100
"""The response's `usage` has all of them."""

HEALTH_ROUTES = frozenset({"/v1/health/live", "/v1/health/ready", "/health"})
"""Asked every second by `make serve`, and every ten by Docker: successes are logged at the level DEBUG."""

CLIENT_CLOSED_REQUEST = 499
"""Logged as the status of a request whose client disconnected before the response."""

KEY_SCHEME = "api_key"
"""Name of the security scheme in the OpenAPI document."""

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class ContextMiddleware:
    """Pure ASGI middleware that keeps a `RequestContext`, and lets no exception of the application through.

    Args:
        app: The wrapped application.
        request_timeout_s: From arrival to response.
        metrics: Where requests are counted.
        trusted_proxies: Reverse proxies that tell the client's address.
    """

    def __init__(
        self,
        app: ASGIApp,
        request_timeout_s: float,
        metrics: Metrics,
        trusted_proxies: Collection[IPNetwork] = (),
    ) -> None:
        self._app = app
        self._request_timeout_s = request_timeout_s
        self._metrics = metrics
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(read_request_id(scope), Deadline.after(self._request_timeout_s))
        attach_context(scope, context)
        if self._trusted_proxies:
            scope["client"] = (read_client_address(scope, self._trusted_proxies), 0)
        self._metrics.in_flight.inc()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(message, context)
            await send(message)

        failure: GatewayError | None = None
        timeout = asyncio.timeout(self._request_timeout_s)
        try:
            async with timeout:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:  # by uvicorn, at the end of GATEWAY_GRACE_S; it would respond in plain text
            failure = EngineUnavailableError("the server is stopping")
        except Exception:
            if timeout.expired():
                late_body = RequestTimeoutError("the request body did not arrive in time")
                failure = DeadlineError() if context.body_is_read else late_body
            else:
                logger.exception("request %s failed", context.request_id)
                failure = GatewayError("the server failed")
        try:
            if failure and not status:
                context.error_type = status_of(failure).type
                await render_error(failure, context.dialect)(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            self._count(context, status)
            log_request(scope, context, status)

    def _count(self, context: RequestContext, status: int) -> None:
        metrics = self._metrics
        metrics.count_request(context.route, context.dialect.name, context.model, status, context.age_s())
        metrics.observe_stages(context.stage_s)
        if context.result is not None:
            metrics.count_usage(context.model, context.items, context.result.usage)


def read_request_id(scope: Scope) -> str:
    """Return the client's `x-request-id` if it is acceptable, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return f"{random.getrandbits(128):032x}"


def add_headers(message: Message, context: RequestContext) -> None:
    """Add the request id and, to a response with vectors, times in milliseconds and tokens."""
    headers = message["headers"]
    headers.append((b"x-request-id", context.request_id.encode()))
    result = context.result
    if result is not None and result.stage_s:
        headers.append((b"x-total-time", b"%.2f" % (context.age_s() * 1e3)))
        headers.append((b"x-queue-time", b"%.2f" % (context.stage_s["admission"] * 1e3)))
        headers.append((b"x-inference-time", b"%.2f" % (context.stage_s["inference"] * 1e3)))
        headers.append((b"x-compute-tokens", b"%d" % result.usage.total_tokens))
        if result.model.fingerprint:
            headers.append((FINGERPRINT_HEADER.encode(), result.model.fingerprint.encode()))
        if result.truncations:
            cut_items = list(dict.fromkeys(truncation.index for truncation in result.truncations))
            indices = ",".join(map(str, cut_items[:MAX_INDICES_IN_HEADER]))
            headers.append((b"x-truncated-items", indices.encode()))


def log_request(scope: Scope, context: RequestContext, status: int) -> None:
    """Write the request's line of the access log."""
    level = logging.DEBUG if context.route in HEALTH_ROUTES and status == 200 else logging.INFO
    if not access_logger.isEnabledFor(level):
        return
    line: dict[str, Any] = {
        "request_id": context.request_id,
        "method": scope["method"],
        "route": context.route,
        "status": status,
        "total_ms": round(context.age_s() * 1e3, 2),
    }
    if context.caller is not ANONYMOUS:
        line["caller"] = context.caller.name
    if context.dialect.name:
        line["dialect"] = context.dialect.name
    for name in ("model", "items", "user_hash", "error_type"):
        value = getattr(context, name)
        if value:
            line[name] = value
    if context.result is not None and context.result.stage_s:
        line["tokens"] = context.result.usage.total_tokens
        line["inference_ms"] = round(context.stage_s["inference"] * 1e3, 2)
    access_logger.log(level, orjson.dumps(line).decode())


class DialectRoute(APIRoute):
    """A route that checks access, fills in the request context, and passes the bare request to its handler.

    FastAPI describes it in the OpenAPI document but neither parses nor validates anything.

    Args:
        path: From the root.
        handler: Serves a request.
        dialect: The API that the route belongs to.
        access: Admits callers; None leaves the route open, API keys or not.
        options: Of `APIRoute`.
    """

    def __init__(
        self, path: str, handler: Handler, *, dialect: Dialect, access: AccessPolicy | None = None, **options: Any
    ) -> None:
        if access is not None:
            optional: list[dict[str, list[str]]] = [{}] if isinstance(access, OpenAccess) else []
            options["openapi_extra"] = options.get("openapi_extra", {}) | {"security": [{KEY_SCHEME: []}, *optional]}
        super().__init__(path, handler, tags=[dialect.title], response_model=None, **options)
        self._handler = handler
        self._dialect = dialect
        self._access = access
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        context = context_of(request)
        context.route = self.path_format
        context.dialect = self._dialect
        try:
            if self._access is not None:
                context.caller = await self._access.admit(request)
            response = await self._handler(request)
        except GatewayError as error:
            response = await handle_gateway_error(request, error)
        await response(scope, receive, send)


class RouteTable:
    """Calls the dialects' routes directly: a third of a small request's cost was FastAPI's middleware and router.

    They parse and authenticate requests and handle errors themselves. What is none of theirs goes on to FastAPI, and so
    do routes with a parameter in their path.

    Args:
        app: FastAPI with its middleware.
        routes: Of which those of dialects are called directly.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route.app
            for route in routes
            if isinstance(route, DialectRoute) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass it on."""
        app = self._routes.get((scope.get("method", ""), scope.get("path", "")), self._app)
        await app(scope, receive, send)
