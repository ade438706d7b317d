"""Errors as HTTP responses: one table of statuses, and one body that every client family can read."""

import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.api.context import NO_DIALECT, Dialect, RequestContext, context_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """The error as OpenAI's and OpenRouter's clients read it."""

    message: str
    type: str
    param: Annotated[str | None, Meta(description="The field at fault, such as `input[3]`.")]
    code: Annotated[int, Meta(description="The HTTP status.")]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Every error of every route; the outer fields are the embedding NIM's."""

    object: Literal["error"]
    message: str
    type: str
    error: ErrorDetails


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How an error appears in HTTP.

    Attributes:
        code: HTTP status.
        type: The `type` in the body.
        description: For the OpenAPI document.
    """

    code: int
    type: str
    description: str


STATUS_OF_ERROR: Mapping[type[errors.GatewayError], ErrorStatus] = {
    errors.InvalidRequestError: ErrorStatus(400, "invalid_request_error", "The request cannot be served as it is."),
    errors.UnauthorizedError: ErrorStatus(401, "authentication_error", "No valid API key."),
    errors.QuotaSpentError: ErrorStatus(402, "insufficient_quota", "The key's quota is used up."),
    errors.NotFoundError: ErrorStatus(404, "not_found_error", "No such model, route or provider."),
    errors.MethodNotAllowedError: ErrorStatus(405, "method_not_allowed", "The route does not have this method."),
    errors.FingerprintError: ErrorStatus(409, "conflict_error", "The embedding space is not the expected one."),
    errors.RequestTimeoutError: ErrorStatus(408, "timeout_error", "The body did not arrive in time."),
    errors.TooLargeError: ErrorStatus(413, "request_too_large", "The body or an image is above its limit."),
    errors.HeadersTooLargeError: ErrorStatus(431, "headers_too_large", "There are too many or too long headers."),
    errors.UnsupportedMediaTypeError: ErrorStatus(415, "unsupported_media_type", "The body is not plain JSON."),
    errors.RateLimitedError: ErrorStatus(429, "rate_limit_error", "The key's rate is exceeded; see Retry-After."),
    errors.OverloadedError: ErrorStatus(503, "overloaded_error", "All queues are full; see Retry-After."),
    errors.EngineUnavailableError: ErrorStatus(503, "service_unavailable", "Not ready; see Retry-After."),
    errors.DeadlineError: ErrorStatus(504, "timeout_error", "The response was not ready in time."),
    errors.EngineFaultError: ErrorStatus(500, "internal_error", "The engine failed."),
    errors.GatewayError: ErrorStatus(500, "internal_error", "The server failed."),
}

ERROR_OF_HTTP_STATUS: Mapping[int, errors.GatewayError] = {
    404: errors.NotFoundError("no such route"),
    405: errors.MethodNotAllowedError("this route does not have this method"),
    413: errors.TooLargeError("the request body is above the limit"),
    415: errors.UnsupportedMediaTypeError("the request body must be application/json"),
}
"""Replaces what the framework raises: its messages can hold parts of the request."""


def status_of(error: errors.GatewayError) -> ErrorStatus:
    """Return the table's entry for an error, by its nearest class."""
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)


def describe_error(error: errors.GatewayError, dialect: Dialect = NO_DIALECT) -> ErrorDetails:
    """Return the fields of an error."""
    status = status_of(error)
    code = dialect.status_overrides.get(status.code, status.code)
    return ErrorDetails(error.message, status.type, error.param, code)


def render_error(error: errors.GatewayError, dialect: Dialect = NO_DIALECT) -> Response:
    """Return the HTTP response for an error.

    Args:
        error: Any.
        dialect: Of the route; it may override statuses.
    """
    details = describe_error(error, dialect)
    body = ErrorBody("error", details.message, details.type, details)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(spread_retry(error.retry_after_s, error.max_retry_after_s))
    if details.code == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body), details.code, headers, media_type="application/json")


def spread_retry(retry_after_s: float, max_retry_after_s: float | None) -> int:
    """Return whole seconds after which to retry: jittered, so that clients refused together do not return together."""
    seconds = math.ceil(retry_after_s * random.uniform(1, 2))  # noqa: S311
    if max_retry_after_s is not None:
        seconds = min(seconds, math.ceil(max_retry_after_s))
    return max(1, seconds)


def log_fault(error: errors.GatewayError, context: RequestContext) -> None:
    """Log why a request ends with status 500, which the client is not told."""
    if status_of(error).code != 500:
        return
    if isinstance(error, errors.EngineFaultError):
        logger.error("request %s failed: %s: %s", context.request_id, error.message, error.cause)
    else:
        logger.error("request %s failed: %s", context.request_id, error.message, exc_info=error)


async def handle_gateway_error(request: Request, error: errors.GatewayError) -> Response:
    """Respond to an error of ours."""
    context = context_of(request)
    context.error_type = status_of(error).type
    log_fault(error, context)
    return render_error(error, context.dialect)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Respond to what Starlette or FastAPI raise by status, with a message of ours."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    fallback = errors.InvalidRequestError("the request is malformed") if status < 500 else None
    known = ERROR_OF_HTTP_STATUS.get(status, fallback or errors.GatewayError("the server failed"))
    response = await handle_gateway_error(request, known)
    headers = error.headers if isinstance(error, HTTPException) else None
    if headers and "Allow" in headers:
        response.headers["allow"] = headers["Allow"]
    return response


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """Respond to FastAPI's validation errors, which would echo the input."""
    return await handle_gateway_error(request, errors.InvalidRequestError("the request is malformed"))


async def handle_unexpected_error(request: Request, error: Exception) -> Response:
    """Respond to any other exception; Starlette raises it again, and `ContextMiddleware` logs it."""
    context = context_of(request)
    known = errors.GatewayError("the server failed")
    context.error_type = status_of(known).type
    return render_error(known, context.dialect)


def add_error_handlers(app: FastAPI) -> None:
    """Give the framework's errors the body that ours have, to which `DialectRoute` responds itself."""
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
    app.add_exception_handler(Exception, handle_unexpected_error)
