"""What handlers work with: the application's services, and the context of the request at hand."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.types import Scope

from gateway.access import ANONYMOUS, AccessPolicy, Caller
from gateway.core.admission import Admission
from gateway.core.catalogue import Catalogue
from gateway.core.health import ReadinessProbe
from gateway.core.metrics import Metrics
from gateway.core.results import InferenceResult
from gateway.core.service import InferenceService
from gateway.errors import OverloadedError
from gateway.settings import Settings
from gateway.types import Deadline

SCOPE_KEY = "gateway.context"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one application."""

    settings: Settings
    catalogue: Catalogue
    inference: InferenceService
    readiness: ReadinessProbe
    access: AccessPolicy
    admission: Admission
    metrics: Metrics


@dataclass(frozen=True)
class Dialect:
    """One of the APIs that clients already speak.

    Attributes:
        name: In logs and metrics.
        title: In the OpenAPI document.
        status_overrides: HTTP statuses used in place of those of the table of errors.
        allows_image_queries: Whether the setting `image_queries` has an effect.
    """

    name: str
    title: str = ""
    status_overrides: Mapping[int, int] = field(default_factory=dict)
    allows_image_queries: bool = True


NO_DIALECT = Dialect("")
"""Of requests that no route matched."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a small request was told that there was no room for: the same holds for others like it, for a moment.

    Attributes:
        error: Says when to retry.
        model: As the client wrote it, or empty.
        route: Path template.
        dialect: Of the route.
    """

    error: OverloadedError
    model: str
    route: str
    dialect: Dialect


@dataclass(slots=True)
class RequestContext:
    """What is known about an HTTP request, filled in as it is processed; feeds headers, log line and metrics.

    Attributes:
        request_id: The client's, or a new one.
        deadline: Of the whole request.
        arrived_s: On the clock of `time.perf_counter`.
        route: Path template of the route, or empty if none matched.
        dialect: Of the route.
        caller: Who sent the request.
        model: Public id, once it is known.
        body_is_read: Whether the body has arrived and been parsed.
        items: Number of items, once they are parsed.
        user_hash: Of the `user` field, or empty.
        error_type: The `type` of the error in the response, or empty.
        result: What the client gets, once it is computed.
        stage_s: Seconds spent in each stage, by its name.
    """

    request_id: str
    deadline: Deadline
    arrived_s: float = field(default_factory=time.perf_counter)
    route: str = ""
    dialect: Dialect = NO_DIALECT
    caller: Caller = ANONYMOUS
    model: str = ""
    body_is_read: bool = False
    items: int = 0
    user_hash: str = ""
    error_type: str = ""
    result: InferenceResult | None = None
    stage_s: dict[str, float] = field(default_factory=dict)

    def age_s(self) -> float:
        """Return the seconds since the request arrived."""
        return time.perf_counter() - self.arrived_s


def attach_context(scope: Scope, context: RequestContext) -> None:
    """Store the context in an ASGI scope."""
    scope[SCOPE_KEY] = context


def context_of(connection: HTTPConnection) -> RequestContext:
    """Return the context of a request that came through `ContextMiddleware`."""
    context: RequestContext = connection.scope[SCOPE_KEY]
    return context
