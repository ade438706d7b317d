"""One deadline for one request, from its arrival to its answer."""

import time
from dataclasses import dataclass

from gateway.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which nobody waits for the answer any more.

    Attributes:
        at_s: the moment, on the clock of `time.monotonic`, in seconds.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left.

        Returns:
            A number above 0.

        Raises:
            DeadlineError: none are left.
        """
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("the request was not answered before its deadline")
        return left_s
