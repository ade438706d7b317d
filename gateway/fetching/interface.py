"""Pictures that a request names by address."""

from typing import Protocol

from gateway.deadline import Deadline
from gateway.errors import InvalidRequestError


class ImageFetcher(Protocol):
    """Gets a picture from where it lies."""

    async def fetch_image(self, url: str, deadline: Deadline) -> bytes:
        """The encoded picture.

        Args:
            url: as the client wrote it.
            deadline: of the request.

        Raises:
            InvalidRequestError: the address is refused, or no picture came from it.
            TooLargeError: the picture is above its limit.
        """
        ...


class NoFetcher:
    """Refuses every address without looking at it."""

    async def fetch_image(self, url: str, deadline: Deadline) -> bytes:
        """Refuses.

        Raises:
            InvalidRequestError: always.
        """
        raise InvalidRequestError("image URLs are not fetched by this server; send the image as a data URL")
