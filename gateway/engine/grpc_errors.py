"""Triton's gRPC statuses in the gateway's own words. Nothing of Triton's text reaches a client from here."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from gateway.errors import DeadlineError, EngineFaultError, EngineUnavailableError, GatewayError, OverloadedError

logger = logging.getLogger(__name__)

UNAVAILABLE = (EngineUnavailableError, "the engine is not available at the moment")
FAULT = (EngineFaultError, "the engine failed")

ERROR_OF_STATUS: Mapping[grpc.StatusCode, tuple[type[GatewayError], str]] = {
    grpc.StatusCode.CANCELLED: UNAVAILABLE,
    grpc.StatusCode.UNKNOWN: UNAVAILABLE,
    grpc.StatusCode.INVALID_ARGUMENT: FAULT,  # what a client can cause is told apart before, by its code
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineError, "the request was not answered before its deadline"),
    grpc.StatusCode.NOT_FOUND: UNAVAILABLE,  # unloaded since the list of models was read
    grpc.StatusCode.ALREADY_EXISTS: FAULT,
    grpc.StatusCode.PERMISSION_DENIED: FAULT,
    grpc.StatusCode.UNAUTHENTICATED: FAULT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: (OverloadedError, "the engine is overloaded"),
    grpc.StatusCode.FAILED_PRECONDITION: FAULT,
    grpc.StatusCode.ABORTED: UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE: FAULT,
    grpc.StatusCode.UNIMPLEMENTED: FAULT,
    grpc.StatusCode.INTERNAL: UNAVAILABLE,  # a dead Python stub, until somebody restarts Triton
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: FAULT,
}
"""Every status but OK, which is no error."""

RETRY_AFTER_S = 1.0

QUEUE_FULL = "maximum queue size"
QUEUE_TIMEOUT = "timeout expired"
"""Parts of what Triton says with UNAVAILABLE, its one status for a full queue, a timeout in it, and shutting down."""


def translate_error(status: grpc.StatusCode, details: str) -> GatewayError:
    """The domain error of a failed call.

    Args:
        status: any but OK.
        details: Triton's text; read for what the status leaves open, never shown.
    """
    kind, message = ERROR_OF_STATUS[status]
    if status is grpc.StatusCode.UNAVAILABLE:
        if QUEUE_FULL in details:
            kind, message = ERROR_OF_STATUS[grpc.StatusCode.RESOURCE_EXHAUSTED]
        elif QUEUE_TIMEOUT in details:
            kind, message = ERROR_OF_STATUS[grpc.StatusCode.DEADLINE_EXCEEDED]
    retry_after_s = RETRY_AFTER_S if kind in (EngineUnavailableError, OverloadedError) else None
    return kind(message, retry_after_s=retry_after_s)


@contextmanager
def grpc_errors_translated() -> Iterator[None]:
    """Turns a failed gRPC call inside into a `GatewayError`, and logs what Triton said.

    Raises:
        GatewayError: of the kind the status table names.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        logger.warning("triton answered %s: %s", error.code().name, details[:1000])
        raise translate_error(error.code(), details) from error
