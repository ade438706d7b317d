"""One deadline for one request, from its arrival to its answer."""

import asyncio
import sys
import time
from dataclasses import dataclass
from types import TracebackType

from gateway.errors import DeadlineError

TOO_LATE = "the request was not answered before its deadline"


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
            raise DeadlineError(TOO_LATE)
        return left_s


class DeadlineTimer:
    """Cancels the task it is entered in when the deadline comes; a context manager that costs one timer.

    What runs inside sees an ordinary cancellation, and frees what it holds. (`asyncio.timeout` would do, and is not in
    Python 3.10.)

    Attributes:
        fired: whether the deadline came while the work inside was running.
    """

    def __init__(self, deadline: Deadline) -> None:
        """Sets no timer yet.

        Args:
            deadline: after which the work inside is cancelled.
        """
        self._deadline = deadline
        self.fired = False

    def __enter__(self) -> "DeadlineTimer":
        """Sets the timer."""
        self._task = asyncio.current_task()
        delay_s = self._deadline.at_s - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._cancel_work)
        return self

    def _cancel_work(self) -> None:
        self.fired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the timer back.

        Raises:
            DeadlineError: the work was cancelled because the deadline came.
        """
        self._timer.cancel()
        if self.fired and kind is asyncio.CancelledError:
            if sys.version_info >= (3, 11) and self._task is not None:
                self._task.uncancel()  # it has been dealt with
            raise DeadlineError(TOO_LATE) from error
