"""Which requests are admitted, in which order, and which are refused."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.core.admission import AdmissionGate
from gateway.errors import OverloadedError


async def visit(gate: AdmissionGate, cost: int, done: asyncio.Event, log: list[int]) -> None:
    with await gate.enter(cost):
        log.append(cost)
        await done.wait()


async def enter(*visits: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.ensure_future(one) for one in visits]
    await asyncio.sleep(0.01)
    return tasks


async def test_cost_in_flight_stays_below_the_limit_in_order_of_arrival() -> None:
    gate, done = AdmissionGate(10, 100), asyncio.Event()
    log: list[int] = []
    tasks = await enter(*(visit(gate, cost, done, log) for cost in (6, 4, 5, 1)))
    assert log == [6, 4]
    assert (gate.in_flight, gate.queued) == (10, 6)
    done.set()
    await asyncio.gather(*tasks)
    assert log == [6, 4, 5, 1]
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_request_above_the_limit_enters_alone() -> None:
    gate, done = AdmissionGate(10, 100), asyncio.Event()
    log: list[int] = []
    tasks = await enter(visit(gate, 50, done, log), visit(gate, 1, done, log))
    assert log == [50]
    done.set()
    await asyncio.gather(*tasks)
    assert log == [50, 1]


async def test_full_queue_refuses_at_once() -> None:
    gate, done = AdmissionGate(10, 8), asyncio.Event()
    log: list[int] = []
    tasks = await enter(visit(gate, 10, done, log), visit(gate, 8, done, log))
    with pytest.raises(OverloadedError) as refused:
        await visit(gate, 1, done, log)
    assert refused.value.retry_after_s
    done.set()
    await asyncio.gather(*tasks)
    await visit(gate, 10, done, log)


async def test_leaving_the_queue_admits_the_next() -> None:
    gate, done = AdmissionGate(10, 100), asyncio.Event()
    log: list[int] = []
    tasks = await enter(*(visit(gate, cost, done, log) for cost in (6, 9, 4)))
    assert log == [6]
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    assert log == [6, 4]
    done.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_cancelling_at_the_moment_of_entry_leaks_nothing() -> None:
    gate, done = AdmissionGate(10, 100), asyncio.Event()
    log: list[int] = []
    tasks = await enter(visit(gate, 10, done, log), visit(gate, 10, done, log))
    tasks[0].cancel()
    await asyncio.sleep(0)  # the first has left, the second is let in but has not run
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.in_flight, gate.queued) == (0, 0)
