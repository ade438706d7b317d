"""What is known about one HTTP request while it is answered: for its headers, its log line, and the metrics."""

import time
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.types import Scope

from gateway.access import ANYBODY, Caller
from gateway.deadline import Deadline
from gateway.dialect import NO_DIALECT, Dialect
from gateway.embeddings import EmbeddingsResult

SCOPE_KEY = "gateway.record"


@dataclass(slots=True)
class RequestRecord:
    """Filled in as the request goes along.

    Attributes:
        request_id: the client's, or a new one.
        deadline: of the whole request.
        arrived_s: on the clock of `time.perf_counter`.
        route: path template of the route, or empty if there is none.
        dialect: of the route, if there is one.
        caller: who asks.
        model: public id, once it is known.
        has_body: whether the body has been read.
        items: how many, once they are parsed.
        user_hash: of the `user` field, or empty.
        error_type: the `type` of the error answered with, or empty.
        result: what the client gets, once it is there.
        stage_s: seconds spent in each stage, by its name.
    """

    request_id: str
    deadline: Deadline
    arrived_s: float = field(default_factory=time.perf_counter)
    route: str = ""
    dialect: Dialect = NO_DIALECT
    caller: Caller = ANYBODY
    model: str = ""
    has_body: bool = False
    items: int = 0
    user_hash: str = ""
    error_type: str = ""
    result: EmbeddingsResult | None = None
    stage_s: dict[str, float] = field(default_factory=dict)

    def age_s(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.arrived_s


def attach_record(scope: Scope, record: RequestRecord) -> None:
    """Hangs the record on an ASGI scope."""
    scope[SCOPE_KEY] = record


def record_of(connection: HTTPConnection) -> RequestRecord:
    """The record of a request that came through `RecordMiddleware`."""
    record: RequestRecord = connection.scope[SCOPE_KEY]
    return record
