"""Domain errors as HTTP answers: one table of statuses, one body that every client family can read."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.dialect import NO_DIALECT, Dialect
from gateway.record import record_of


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How HTTP calls a domain error.

    Attributes:
        code: the HTTP status.
        type: the word in the body.
        description: for the OpenAPI document.
    """

    code: int
    type: str
    description: str


STATUS_OF_ERROR: Mapping[type[errors.GatewayError], ErrorStatus] = {
    errors.InvalidRequestError: ErrorStatus(400, "invalid_request_error", "The request cannot be answered as it is."),
    errors.UnauthorizedError: ErrorStatus(401, "authentication_error", "No valid API key."),
    errors.QuotaSpentError: ErrorStatus(402, "insufficient_quota", "The key's quota is spent."),
    errors.NotFoundError: ErrorStatus(404, "not_found_error", "No such model, route or provider."),
    errors.MethodNotAllowedError: ErrorStatus(405, "method_not_allowed", "The route has other methods."),
    errors.RequestTimeoutError: ErrorStatus(408, "timeout_error", "The body did not arrive in time."),
    errors.TooLargeError: ErrorStatus(413, "request_too_large", "The body or an image is above its limit."),
    errors.UnsupportedMediaTypeError: ErrorStatus(415, "unsupported_media_type", "The body is not plain JSON."),
    errors.RateLimitedError: ErrorStatus(429, "rate_limit_error", "This key asks too often; see Retry-After."),
    errors.OverloadedError: ErrorStatus(503, "overloaded_error", "All queues are full; see Retry-After."),
    errors.EngineUnavailableError: ErrorStatus(503, "service_unavailable", "Not ready; see Retry-After."),
    errors.DeadlineError: ErrorStatus(504, "timeout_error", "The answer was not ready in time."),
    errors.EngineFaultError: ErrorStatus(500, "internal_error", "The engine failed."),
    errors.GatewayError: ErrorStatus(500, "internal_error", "The server failed."),
}

ERROR_OF_HTTP_STATUS: Mapping[int, errors.GatewayError] = {
    404: errors.NotFoundError("no such route"),
    405: errors.MethodNotAllowedError("this route does not have this method"),
    413: errors.TooLargeError("the request body is above the limit"),
    415: errors.UnsupportedMediaTypeError("the request body must be application/json"),
}
"""Words of our own for what the framework raises; its texts can hold parts of the request."""


def status_of(error: errors.GatewayError) -> ErrorStatus:
    """The table's entry for an error, by its nearest class."""
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)


def render_error(error: errors.GatewayError, dialect: Dialect = NO_DIALECT) -> Response:
    """The HTTP answer of an error.

    Args:
        error: any.
        dialect: of the route; it may have statuses of its own.
    """
    status = status_of(error)
    code = dialect.statuses.get(status.code, status.code)
    body = {
        "object": "error",
        "message": error.message,
        "type": status.type,
        "error": {"message": error.message, "type": status.type, "param": error.param, "code": code},
    }
    headers = {}
    if error.retry_after_s is not None:
        # Spread, so that those refused together do not come back together.
        headers["retry-after"] = str(max(1, round(error.retry_after_s * random.uniform(1, 2))))  # noqa: S311
    if status.code == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body), code, headers, media_type="application/json")


async def answer_gateway_error(request: Request, error: Exception) -> Response:
    """Answers a domain error."""
    known = error if isinstance(error, errors.GatewayError) else errors.GatewayError("the server failed")
    record = record_of(request)
    record.error_type = status_of(known).type
    return render_error(known, record.dialect)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answers what Starlette or FastAPI raise by status, in our own words."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    fallback = errors.InvalidRequestError("the request is malformed") if status < 500 else None
    known = ERROR_OF_HTTP_STATUS.get(status, fallback or errors.GatewayError("the server failed"))
    response = await answer_gateway_error(request, known)
    headers = error.headers if isinstance(error, HTTPException) else None
    if headers and "Allow" in headers:
        response.headers["allow"] = headers["Allow"]
    return response


async def answer_validation_error(request: Request, error: Exception) -> Response:
    """Answers FastAPI's validation errors, which would echo the input."""
    return await answer_gateway_error(request, errors.InvalidRequestError("the request is malformed"))


def add_error_handlers(app: FastAPI) -> None:
    """Puts every error of the framework and of ours into the one body."""
    app.add_exception_handler(errors.GatewayError, answer_gateway_error)
    app.add_exception_handler(HTTPException, answer_http_exception)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
