"""The one deadline of a request."""

import asyncio

import pytest

from gateway.deadline import Deadline, DeadlineTimer
from gateway.errors import DeadlineError


def test_a_passed_deadline_leaves_no_time() -> None:
    assert 0 < Deadline.after(5).remaining_s() <= 5
    with pytest.raises(DeadlineError):
        Deadline.after(-1).remaining_s()


async def test_timer_cancels_the_work_and_names_the_reason() -> None:
    with pytest.raises(DeadlineError), DeadlineTimer(Deadline.after(0.01)):
        await asyncio.sleep(30)
    await asyncio.sleep(0)  # the task itself goes on, uncancelled


async def test_timer_leaves_work_in_time_and_other_errors_alone() -> None:
    with DeadlineTimer(Deadline.after(30)):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="mine"), DeadlineTimer(Deadline.after(30)):
        raise ValueError("mine")


async def test_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        with DeadlineTimer(Deadline.after(30)):
            await asyncio.sleep(30)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
