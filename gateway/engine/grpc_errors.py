"""Triton's gRPC statuses as gateway errors. Triton's own text is logged here and never reaches a client."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from gateway.errors import DeadlineError, EngineFaultError, EngineUnavailableError, GatewayError, OverloadedError

logger = logging.getLogger(__name__)


ERROR_OF_STATUS: Mapping[grpc.StatusCode, type[GatewayError]] = {
    grpc.StatusCode.CANCELLED: EngineUnavailableError,
    grpc.StatusCode.UNKNOWN: EngineUnavailableError,
    grpc.StatusCode.INVALID_ARGUMENT: EngineFaultError,  # what a client can cause has a code, and is recognised before
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.NOT_FOUND: EngineUnavailableError,  # unloaded since the list of models was read
    grpc.StatusCode.ALREADY_EXISTS: EngineFaultError,
    grpc.StatusCode.PERMISSION_DENIED: EngineFaultError,
    grpc.StatusCode.UNAUTHENTICATED: EngineFaultError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.FAILED_PRECONDITION: EngineFaultError,
    grpc.StatusCode.ABORTED: EngineUnavailableError,
    grpc.StatusCode.OUT_OF_RANGE: EngineFaultError,
    grpc.StatusCode.UNIMPLEMENTED: EngineFaultError,
    grpc.StatusCode.INTERNAL: EngineUnavailableError,  # a dead Python stub, until Triton is restarted
    grpc.StatusCode.UNAVAILABLE: EngineUnavailableError,
    grpc.StatusCode.DATA_LOSS: EngineFaultError,
}
"""Every status but OK."""

MAX_LOGGED_CHARS = 1000

QUEUE_FULL = "maximum queue size"
QUEUE_TIMEOUT = "timeout expired"
"""Parts of Triton's text for UNAVAILABLE, its one status for a full queue, a timeout in it, and shutting down."""

UNKNOWN_MODEL = "Request for unknown model"
"""Begins Triton's text, of either of two statuses, for a model or version that it does not serve, or not any more."""


def translate_error(status: grpc.StatusCode, details: str) -> GatewayError:
    """Return the gateway error of a failed call.

    Args:
        status: Any but OK.
        details: Triton's text; decides what the status leaves open.
    """
    kind = ERROR_OF_STATUS[status]
    if status is grpc.StatusCode.UNAVAILABLE and QUEUE_FULL in details:
        kind = OverloadedError
    elif status is grpc.StatusCode.UNAVAILABLE and QUEUE_TIMEOUT in details:
        kind = DeadlineError
    if kind is EngineFaultError:
        return EngineFaultError(f"Triton returned {status.name}: {details[:MAX_LOGGED_CHARS]}")
    if kind is OverloadedError:
        return OverloadedError("the engine is overloaded", retry_after_s=1.0)
    return kind() if kind is DeadlineError else EngineUnavailableError()


def is_gone(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a call failed because Triton does not serve the model, or that version of it."""
    return error.code() is grpc.StatusCode.NOT_FOUND or (error.details() or "").startswith(UNKNOWN_MODEL)


@contextmanager
def grpc_errors_translated() -> Iterator[None]:
    """Turn a failed gRPC call inside into a `GatewayError`, and log Triton's text.

    Raises:
        GatewayError: Of the kind that the table of statuses names.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        logger.warning("Triton returned %s: %s", error.code().name, details[:MAX_LOGGED_CHARS])
        raise translate_error(error.code(), details) from error
