"""Pictures that a request names by address."""

from typing import Protocol

from gateway.deadline import Deadline
from gateway.errors import InvalidRequestError, TooLargeError


class ByteBudget:
    """Bytes that all pictures fetched for one request may have together."""

    def __init__(self, max_bytes: int) -> None:
        """Nothing is taken yet.

        Args:
            max_bytes: of encoded pictures.
        """
        self._max_bytes = max_bytes
        self._taken = 0

    def take(self, count: int) -> None:
        """Counts bytes that have come.

        Raises:
            TooLargeError: more than there may be.
        """
        self._taken += count
        if self._taken > self._max_bytes:
            raise TooLargeError(f"the images fetched for one request are above the limit of {self._max_bytes} bytes")


class ImageFetcher(Protocol):
    """Gets a picture from where it lies."""

    async def fetch_image(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """The encoded picture.

        Args:
            url: as the client wrote it.
            deadline: of the request.
            budget: of the request.

        Raises:
            InvalidRequestError: the address is refused, or no picture came from it.
            TooLargeError: the picture is above its limit, or all of the request together.
        """
        ...


class NoFetcher:
    """Refuses every address without looking at it."""

    async def fetch_image(self, url: str, deadline: Deadline, budget: ByteBudget) -> bytes:
        """Refuses.

        Raises:
            InvalidRequestError: always.
        """
        raise InvalidRequestError("image URLs are not fetched by this server; send the image as a data URL")
