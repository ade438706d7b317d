"""One deadline for a request, from arrival to response."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which a response is no longer of use.

    Attributes:
        at_s: In seconds, on the clock of `time.monotonic`.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Return the seconds left, above 0.

        Raises:
            DeadlineError: The deadline has passed.
        """
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError
        return left_s

    @asynccontextmanager
    async def enforce(self) -> AsyncIterator[None]:
        """Cancel the block inside when the deadline comes.

        Raises:
            DeadlineError: The block was cancelled, or the deadline had passed before.
        """
        try:
            async with asyncio.timeout(self.remaining_s()) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise  # from a timeout inside the block
            raise DeadlineError from error
