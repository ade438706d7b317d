"""One deadline for a request, from arrival to response."""

import time
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
