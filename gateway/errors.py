"""What can go wrong, in the gateway's own terms. HTTP statuses are assigned in `api/error_responses.py`.

GatewayError
├── InvalidRequestError           the request cannot be served as it is
│   └── InvalidItemError          one item of its input cannot
├── UnauthorizedError             no valid API key
├── QuotaSpentError               the key's quota is used up
├── NotFoundError                 no such model, route or provider
│   └── ModelNotFoundError
├── MethodNotAllowedError
├── FingerprintError              the model's embedding space is not the expected one
├── RequestTimeoutError           the body did not arrive in time
├── TooLargeError                 body or image above its limit
├── HeadersTooLargeError          more headers, or more bytes of them, than allowed
├── UnsupportedMediaTypeError     not JSON, or compressed
├── RateLimitedError              the key's rate is exceeded
├── OverloadedError               a shared queue is full
├── EngineUnavailableError        the engine is down, starting or draining
│   └── ModelReplacedError        the engine no longer has the model that the request was checked against
├── DeadlineError                 the response was not ready in time
└── EngineFaultError              the engine broke its contract
    └── InvalidVectorError        a vector that is not made of finite numbers
"""

import re

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@+-]{0,79}")


def quote(value: str) -> str:
    """Return what an error message may repeat of a client's string: a short identifier in quotes, else no content."""
    return f"'{value}'" if IDENTIFIER.fullmatch(value) else "another string"


class GatewayError(Exception):
    """Base of every error that is reported to a client.

    Attributes:
        message: Text that is safe to show to the client: of the input, it repeats short identifiers at most.
        param: The field at fault, such as `input[3]`, or None.
        retry_after_s: Seconds after which a retry may help, or None.
        max_retry_after_s: Seconds to which the response may raise that, to spread retries; None for no bound.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        max_retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.max_retry_after_s = max_retry_after_s


class InvalidRequestError(GatewayError):
    """The request cannot be served as it is."""


class InvalidItemError(InvalidRequestError):
    """One item of the input cannot be embedded.

    Args:
        index: Position of the item in the request, from 0.
        reason: Continues the sentence "input[0] ...".
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"input[{index}] {reason}", param=f"input[{index}]")


class UnauthorizedError(GatewayError):
    """The request carries no valid API key."""


class QuotaSpentError(GatewayError):
    """The key's quota is used up."""


class NotFoundError(GatewayError):
    """There is no such model, route or provider."""


class ModelNotFoundError(NotFoundError):
    """No served model has the requested id."""


class MethodNotAllowedError(GatewayError):
    """The route exists, but not for this method."""


class FingerprintError(GatewayError):
    """The model's embedding space is not the one that the client expects."""


class RequestTimeoutError(GatewayError):
    """The request's body did not arrive before the deadline."""


class TooLargeError(GatewayError):
    """A body or an image is above its limit."""


class HeadersTooLargeError(GatewayError):
    """The request has more headers, or more bytes of them, than allowed."""


class UnsupportedMediaTypeError(GatewayError):
    """The body is not JSON, or is compressed."""


class RateLimitedError(GatewayError):
    """The key's rate is exceeded."""


class OverloadedError(GatewayError):
    """A shared queue is full."""


class EngineUnavailableError(GatewayError):
    """The engine is down, starting, draining, or does not serve the model at the moment."""

    def __init__(
        self, message: str = "the engine is not available at the moment", *, retry_after_s: float | None = 1.0
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class ModelReplacedError(EngineUnavailableError):
    """The engine no longer has the model that the request was checked against, but perhaps another of its name."""


class DeadlineError(GatewayError):
    """The response was not ready before the deadline."""

    def __init__(self, message: str = "the request was not answered before its deadline") -> None:
        super().__init__(message)


class EngineFaultError(GatewayError):
    """The engine broke its contract.

    Attributes:
        cause: What the engine did; logged with the request id, never sent to the client.
    """

    def __init__(self, cause: str, message: str = "the engine failed") -> None:
        super().__init__(message)
        self.cause = cause


class InvalidVectorError(EngineFaultError):
    """The engine returned a vector that is not made of finite numbers, or a score that is none."""

    def __init__(self, kind: str = "vector") -> None:
        super().__init__(f"a {kind} is NaN or infinite, or has such components", f"engine returned an invalid {kind}")
