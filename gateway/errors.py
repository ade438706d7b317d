"""What can go wrong, in the gateway's own words; statuses belong to HTTP and stand in `error_responses`.

GatewayError
├── InvalidRequestError           the client's request cannot be answered as it stands
│   └── InvalidItemError          one item of its input cannot
├── UnauthorizedError             no valid key
├── QuotaSpentError               the key's quota is used up
├── NotFoundError                 no such model, route or provider
├── MethodNotAllowedError
├── RequestTimeoutError           the body did not arrive in time
├── TooLargeError                 body or image above its limit
├── UnsupportedMediaTypeError     not JSON, or compressed
├── RateLimitedError              this key asks too often
├── OverloadedError               everybody together asks too often
├── EngineUnavailableError        the engine is away, starting or draining
├── DeadlineError                 the answer was not ready in time
└── EngineFaultError              the engine answered nonsense
    └── InvalidVectorError        a vector that is not made of numbers
"""


class GatewayError(Exception):
    """Base of every error that a client is told about.

    Attributes:
        message: text fit for the client's eyes; never holds more of the input than a short identifier.
        param: the request's field at fault, such as `input[3]`, or None.
        retry_after_s: seconds after which trying again may help, or None.
    """

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        """Keeps the three attributes."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequestError(GatewayError):
    """The client's request cannot be answered as it stands."""


class InvalidItemError(InvalidRequestError):
    """One item of the input cannot be embedded."""

    def __init__(self, index: int, reason: str) -> None:
        """Names the item by its place in the client's own list.

        Args:
            index: place of the item in the request, from 0.
            reason: what is wrong, continuing the sentence "input[0] ...".
        """
        super().__init__(f"input[{index}] {reason}", param=f"input[{index}]")


class UnauthorizedError(GatewayError):
    """The request carries no valid key."""


class QuotaSpentError(GatewayError):
    """The key's quota is used up."""


class NotFoundError(GatewayError):
    """No such model, route or provider."""


class ModelNotFoundError(NotFoundError):
    """No served model has the id asked for."""


class MethodNotAllowedError(GatewayError):
    """The route exists, with other methods."""


class RequestTimeoutError(GatewayError):
    """The request's body did not arrive before its deadline."""


class TooLargeError(GatewayError):
    """A body or an image is above its limit."""


class UnsupportedMediaTypeError(GatewayError):
    """The body is not JSON, or is compressed."""


class RateLimitedError(GatewayError):
    """This key asks more often than it may."""


class OverloadedError(GatewayError):
    """A shared queue is full."""


class EngineUnavailableError(GatewayError):
    """The engine is away, starting, draining, or does not serve the model at the moment."""


class DeadlineError(GatewayError):
    """The answer was not ready before the request's deadline."""


class EngineFaultError(GatewayError):
    """The engine broke its contract."""


class InvalidVectorError(EngineFaultError):
    """The engine answered with a vector that is not made of finite numbers."""

    def __init__(self) -> None:
        """Says so, and no more: which item it was tells the client nothing."""
        super().__init__("engine returned an invalid vector")
