"""The kind of route that dialects are served by."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access import AccessPolicy, OpenAccess
from gateway.dialect import Dialect
from gateway.record import record_of

KEY_SCHEME = "api_key"
"""What the OpenAPI document calls the way in which a request carries its key."""

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class DialectRoute(APIRoute):
    """A route that hands its handler the bare request, and tells the record which route and dialect it is.

    FastAPI describes it in the OpenAPI document but neither parses nor validates: what a dialect takes, and in which
    words it refuses, is the dialect's own, and a model per item would cost more than the rest of the gateway.
    """

    def __init__(
        self, path: str, handler: Handler, *, dialect: Dialect, access: AccessPolicy | None = None, **options: Any
    ) -> None:
        """Describes the route.

        Args:
            path: from the root.
            handler: answers a request.
            dialect: that the route belongs to.
            access: admits callers; None leaves the route open to everybody, keys or not.
            options: of `APIRoute`.
        """
        if access is not None:
            anybody: list[dict[str, list[str]]] = [{}] if isinstance(access, OpenAccess) else []
            options["openapi_extra"] = options.get("openapi_extra", {}) | {"security": [{KEY_SCHEME: []}, *anybody]}
        super().__init__(path, handler, tags=[dialect.title], **options)
        self._handler = handler
        self._dialect = dialect
        self._access = access
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        record = record_of(request)
        record.route = self.path
        record.dialect = self._dialect
        if self._access is not None:
            record.caller = await self._access.admit(request)
        response = await self._handler(request)
        await response(scope, receive, send)
