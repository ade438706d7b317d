"""The one deadline of a request."""

import asyncio

import pytest

from gateway.errors import DeadlineError
from gateway.timeouts import Deadline


def test_a_passed_deadline_leaves_no_time() -> None:
    assert 0 < Deadline.after(5).remaining_s() <= 5
    with pytest.raises(DeadlineError):
        Deadline.after(-1).remaining_s()


async def test_deadline_cancels_the_work_and_names_the_reason() -> None:
    with pytest.raises(DeadlineError):
        async with Deadline.after(0.01).enforce():
            await asyncio.sleep(30)
    await asyncio.sleep(0)  # the task itself is not cancelled


async def test_deadline_leaves_work_in_time_and_other_errors_alone() -> None:
    async with Deadline.after(30).enforce():
        await asyncio.sleep(0)
    for error in (ValueError("mine"), TimeoutError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with Deadline.after(30).enforce():
                raise error


async def test_cancellation_from_elsewhere_stays_one() -> None:
    async def work() -> None:
        async with Deadline.after(30).enforce():
            await asyncio.sleep(30)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
