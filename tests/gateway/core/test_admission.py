"""Whose turn it is, how much is in flight, and who is refused."""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.core.admission import MIN_CONCURRENCY, Admission, AdmissionGate
from gateway.errors import OverloadedError
from gateway.settings import Settings
from gateway.types import Client, Deadline

ALICE, BOB = Client("alice"), Client("bob")


class Engine:
    """Works on one thing at a time, at a steady rate, and notes whose turn it was."""

    def __init__(self, gate: AdmissionGate, tokens_per_s: float = 100_000) -> None:
        self.gate = gate
        self.seconds_per_token = 1 / tokens_per_s
        self.lock = asyncio.Lock()
        self.served: list[str] = []

    async def work(self, name: str, cost: int) -> None:
        async with self.lock:
            self.served.append(name)
            await asyncio.sleep(cost * self.seconds_per_token)

    async def serve(self, name: str, client: Client, *costs: int, unused: int = 0) -> float:
        """Serve a request with inference requests of these costs at once; return the seconds that it took.

        Args:
            name: To note.
            client: Who sends it.
            costs: Estimated.
            unused: Of each cost, what turns out not to be needed.
        """
        started_s = time.monotonic()

        async def serve_one(cost: int) -> None:
            with await ticket.enter(cost) as slot:
                await self.work(name, cost - unused)
                slot.refund(unused)

        with self.gate.admit(client, sum(costs)) as ticket:
            await asyncio.gather(*map(serve_one, costs))
        return time.monotonic() - started_s


def make_gate(limit: int = 100, latency_target_s: float = 60.0, max_queue_s: float = 60.0) -> AdmissionGate:
    """Return a gate whose limit does not change unless the target says so."""
    return AdmissionGate(limit, latency_target_s, max_queue_s)


async def run(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0.01)
    return tasks


async def hold(gate: AdmissionGate, cost: int, done: asyncio.Event, log: list[int]) -> None:
    with gate.admit(ALICE, cost) as ticket, await ticket.enter(cost):
        log.append(cost)
        await done.wait()


async def test_cost_in_flight_stays_below_the_limit() -> None:
    gate, done = make_gate(10), asyncio.Event()
    log: list[int] = []
    tasks = await run(*(hold(gate, cost, done, log) for cost in (3, 3, 4, 5, 1)))
    assert log == [3, 3, 4]
    assert (gate.in_flight, gate.queued) == (10, 6)
    done.set()
    await asyncio.gather(*tasks)
    assert (gate.in_flight, gate.backlog) == (0, 0)


async def test_what_is_above_the_limit_is_admitted_all_the_same() -> None:
    gate, done = make_gate(10), asyncio.Event()
    log: list[int] = []
    tasks = await run(*(hold(gate, cost, done, log) for cost in (50, 60, 1)))
    assert log == [50, 60], f"{MIN_CONCURRENCY} are always in flight"
    done.set()
    await asyncio.gather(*tasks)
    assert log == [50, 60, 1]


async def test_a_small_request_does_not_wait_for_all_of_a_large_one() -> None:
    engine = Engine(make_gate(200))
    large = asyncio.ensure_future(engine.serve("large", ALICE, *[100] * 100))
    await asyncio.sleep(0.01)
    await engine.serve("small", ALICE, 10)
    position = engine.served.index("small")
    await large
    assert len(engine.served) == 101
    assert position < 15


async def test_clients_share_the_engine_whatever_they_send() -> None:
    engine = Engine(make_gate(200))
    many = [engine.serve("alice", ALICE, 100) for _ in range(60)]
    one = engine.serve("bob", BOB, *[100] * 20)
    tasks = await run(*many, one)
    while engine.served.count("bob") < 15:
        await asyncio.sleep(0.001)
    counts = Counter(engine.served)
    await asyncio.gather(*tasks)
    assert counts["alice"] <= 20


async def test_a_client_does_not_wait_for_what_takes_another_long() -> None:
    gate, done = make_gate(10), asyncio.Event()
    log: list[int] = []
    tasks = await run(*(hold(gate, cost, done, log) for cost in (50, 60, 70)))
    assert log == [50, 60]
    with gate.admit(BOB, 5) as ticket, await ticket.enter(5):
        assert gate.in_flight == 115
    done.set()
    await asyncio.gather(*tasks)
    assert (gate.in_flight, gate.backlog) == (0, 0)


async def test_a_key_of_twice_the_weight_has_twice_the_share() -> None:
    engine = Engine(make_gate(200))
    heavy = Client("heavy", 2.0)
    tasks = await run(engine.serve("bob", BOB, *[100] * 60), engine.serve("heavy", heavy, *[100] * 60))
    while len(engine.served) < 45:
        await asyncio.sleep(0.001)
    counts = Counter(engine.served)
    await asyncio.gather(*tasks)
    assert 1.6 < counts["heavy"] / counts["bob"] < 2.6


async def test_a_share_counts_what_requests_have_cost_not_what_was_estimated() -> None:
    engine = Engine(make_gate(200))
    tasks = await run(engine.serve("large", ALICE, *[100] * 60), engine.serve("small", BOB, *[100] * 60, unused=90))
    while engine.served.count("small") < 50:
        await asyncio.sleep(0.001)
    counts = Counter(engine.served)
    await asyncio.gather(*tasks)
    assert counts["large"] < 20, "exact: 5"


async def test_a_client_that_comes_back_has_not_saved_up_a_share() -> None:
    engine = Engine(make_gate(200))
    await engine.serve("bob", BOB, 1)
    await engine.serve("alice", ALICE, *[100] * 20)
    tasks = await run(engine.serve("alice", ALICE, *[100] * 20), engine.serve("bob", BOB, *[100] * 20))
    await asyncio.gather(*tasks)
    recent = Counter(engine.served[-40:-10])
    assert abs(recent["alice"] - recent["bob"]) <= 6


async def test_the_limit_adapts_to_an_engine_that_is_slow_or_fast() -> None:
    slow = Engine(AdmissionGate(100_000, 0.05, 60.0), tokens_per_s=20_000)
    await slow.serve("slow", ALICE, *[100] * 300)
    assert slow.gate.limit < 4_000, "about 1,000 tokens take the target"
    fast = Engine(AdmissionGate(100_000, 0.05, 60.0), tokens_per_s=1_000_000)
    await fast.serve("fast", ALICE, *[2_000] * 300)
    assert fast.gate.limit > 10_000


async def test_chunks_are_as_large_as_the_engine_is_fast() -> None:
    gate = AdmissionGate(100_000, 0.2, 60.0)
    assert gate.chunk_tokens == 100_000
    await Engine(gate, tokens_per_s=20_000).serve("slow", ALICE, *[100] * 200)
    assert 256 <= gate.chunk_tokens < 2_500  # exact: 2,000; the machine may be busy


async def test_who_would_wait_too_long_is_refused_at_once_with_the_time() -> None:
    engine = Engine(make_gate(200, max_queue_s=1.0), tokens_per_s=5_000)
    await engine.serve("first", ALICE, *[100] * 20)
    tasks = await run(*(engine.serve("bulk", ALICE, *[100] * 80) for _ in range(2)))
    started_s = time.monotonic()
    with pytest.raises(OverloadedError) as refused:
        engine.gate.admit(ALICE, 8_000)
    assert time.monotonic() - started_s < 0.5
    assert 1 <= (refused.value.retry_after_s or 0) < 10
    engine.gate.admit(ALICE, 10)  # has its turn soon
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_who_could_not_be_served_before_its_deadline_is_refused() -> None:
    engine = Engine(make_gate(200), tokens_per_s=5_000)
    await engine.serve("first", ALICE, *[100] * 20)
    tasks = await run(engine.serve("bulk", ALICE, *[100] * 80))
    engine.gate.admit(ALICE, 8_000, Deadline.after(30))
    with pytest.raises(OverloadedError):
        engine.gate.admit(ALICE, 8_000, Deadline.after(0.5))
    tasks[0].cancel()
    await asyncio.wait(tasks)


async def test_who_has_nothing_waiting_is_not_refused_for_those_who_have() -> None:
    engine = Engine(make_gate(200, max_queue_s=1.0), tokens_per_s=5_000)
    await engine.serve("first", ALICE, *[100] * 20)
    tasks = await run(*(engine.serve("flood", ALICE, 10) for _ in range(2000)))
    with pytest.raises(OverloadedError):
        engine.gate.admit(ALICE, 10)
    engine.gate.admit(BOB, 10)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_small_requests_wait_less_than_large_ones() -> None:
    engine = Engine(make_gate(200), tokens_per_s=5_000)
    await engine.serve("first", ALICE, *[100] * 20)
    tasks = await run(*(engine.serve("flood", ALICE, 100) for _ in range(600)))
    with pytest.raises(OverloadedError):
        engine.gate.admit(ALICE, 100)  # takes 20 ms, and would wait for 12 s
    engine.gate.admit(ALICE, 2_000)  # takes 400 ms
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_an_idle_gate_admits_a_request_of_any_size() -> None:
    engine = Engine(make_gate(200, max_queue_s=0.1), tokens_per_s=5_000)
    await engine.serve("first", ALICE, *[100] * 20)
    assert engine.gate.find_refusal(ALICE, 10**9) is None


async def test_leaving_the_queue_admits_the_next() -> None:
    gate, done = make_gate(10), asyncio.Event()
    log: list[int] = []
    tasks = await run(*(hold(gate, cost, done, log) for cost in (3, 3, 9, 4)))
    assert log == [3, 3]
    tasks[2].cancel()
    await asyncio.sleep(0.01)
    assert log == [3, 3, 4]
    done.set()
    await asyncio.wait(tasks)
    assert (gate.in_flight, gate.backlog) == (0, 0)


async def test_cancelling_at_the_moment_of_entry_leaks_nothing() -> None:
    gate, done = make_gate(10), asyncio.Event()
    log: list[int] = []
    tasks = await run(*(hold(gate, 10, done, log) for _ in range(3)))
    tasks[0].cancel()
    await asyncio.sleep(0)  # the first has left, the third is let in but has not run
    tasks[2].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.in_flight, gate.backlog) == (0, 0)


async def test_gates_go_with_their_model() -> None:
    admission = Admission(Settings(max_text_tokens_in_flight=10, max_queue_s=0.001))
    gone, kept = admission.gate_of("a/gone", "text"), admission.gate_of("a/kept", "text")
    with gone.admit(ALICE, 10) as ticket:
        slot = await ticket.enter(10)
        admission.keep({"a/kept"})
        assert admission.gates == {("a/kept", "text"): kept}
        slot.release()
    assert gone.in_flight == 0
    assert admission.gate_of("a/gone", "text") is not gone
