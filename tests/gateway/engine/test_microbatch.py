"""Small requests that arrive together share an inference request, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from gateway.core.admission import AdmissionGate
from gateway.engine import EmbedBatch, EmbedResult, ItemFailure, ServedModel, Slot
from gateway.engine.microbatch import MicroBatcher
from gateway.errors import EngineFaultError, EngineUnavailableError, GatewayError
from gateway.types import Client, Item, TextItem
from tests.gateway.engine.batches import make_batch

MODEL = ServedModel("a/b", dimensions=2, max_tokens=1000, takes_images=False)


def number_of(item: Item) -> int:
    assert isinstance(item, TextItem)
    return int(item.text.split()[0])


@dataclass
class OneByOne:
    """Embeds a batch; an item's vector and counts are its number. It fails for every batch that has a poisoned item."""

    sent: list[EmbedBatch] = field(default_factory=list)
    poison: frozenset[int] = frozenset()
    error: GatewayError = field(default_factory=lambda: EngineFaultError("the engine failed"))
    failing: frozenset[int] = frozenset()
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, batch: EmbedBatch, slot: Slot) -> EmbedResult:
        self.sent.append(batch)
        await self.may_end.wait()
        numbers = [number_of(item) for item in batch.items]
        if self.poison.intersection(numbers):
            raise self.error
        counts = np.array(numbers, np.int32)
        failures = {index: ItemFailure("text_too_long", f"{n}") for index, n in enumerate(numbers) if n in self.failing}
        vectors = np.repeat(np.array(numbers, np.float32)[:, np.newaxis], 2, axis=1)
        return EmbedResult(vectors, counts, counts, counts * 0, counts * 0, failures)


@pytest.fixture
async def engine() -> OneByOne:
    engine = OneByOne()
    engine.may_end.set()
    return engine


@pytest.fixture
async def batcher(engine: OneByOne) -> MicroBatcher:
    return MicroBatcher(engine.embed, max_items=4)


def batch_of(*numbers: int) -> EmbedBatch:
    return make_batch(MODEL, *(TextItem(str(number)) for number in numbers))


def freely(batcher: MicroBatcher) -> Callable[[EmbedBatch], Awaitable[EmbedResult]]:
    """Return the batcher's `embed` for requests that need no admission."""
    return lambda batch: batcher.embed(batch, Slot())


async def visit(batcher: MicroBatcher, gate: AdmissionGate, number: int) -> EmbedResult:
    with gate.admit(Client(), 10) as ticket, await ticket.enter(10) as slot:
        return await batcher.embed(batch_of(number), slot)


def read_numbers(result: EmbedResult | BaseException) -> list[int]:
    assert isinstance(result, EmbedResult)
    assert (result.embeddings == result.token_counts[:, np.newaxis]).all()
    return result.token_counts.tolist()


async def test_simultaneous_requests_share_a_batch_and_get_their_own_rows(
    engine: OneByOne, batcher: MicroBatcher
) -> None:
    requests = [batch_of(1), batch_of(2, 3), batch_of(4), batch_of(5), batch_of(6, 7, 8, 9, 10), batch_of(11)]
    answers = await asyncio.gather(*map(freely(batcher), requests))
    assert [read_numbers(answer) for answer in answers] == [[1], [2, 3], [4], [5], [6, 7, 8, 9, 10], [11]]
    assert [len(batch.items) for batch in engine.sent] == [4, 1, 5, 1]


async def test_a_request_alone_does_not_wait(engine: OneByOne, batcher: MicroBatcher) -> None:
    first = asyncio.ensure_future(batcher.embed(batch_of(1), Slot()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.ensure_future(batcher.embed(batch_of(2), Slot()))
    await asyncio.gather(first, second)
    assert [len(batch.items) for batch in engine.sent] == [1, 1]


async def test_a_wait_ends_on_timeout_or_when_the_batch_is_full(engine: OneByOne) -> None:
    batcher = MicroBatcher(engine.embed, max_items=4, wait_ms=200)
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = asyncio.ensure_future(batcher.embed(batch_of(1), Slot()))
    await asyncio.sleep(0.02)
    second = asyncio.ensure_future(batcher.embed(batch_of(2), Slot()))
    await asyncio.gather(first, second)
    assert 0.19 < loop.time() - began
    assert [len(batch.items) for batch in engine.sent] == [2]

    patient = MicroBatcher(engine.embed, max_items=4, wait_ms=600_000)
    waiting = asyncio.ensure_future(patient.embed(batch_of(3, 4), Slot()))
    await asyncio.sleep(0.02)
    assert len(engine.sent) == 1
    answers = await asyncio.gather(waiting, patient.embed(batch_of(5, 6), Slot()))
    assert [read_numbers(answer) for answer in answers] == [[3, 4], [5, 6]]
    assert [len(batch.items) for batch in engine.sent] == [2, 4]
    late = asyncio.ensure_future(patient.embed(batch_of(7), Slot()))
    await asyncio.gather(patient.embed(batch_of(8, 9, 10), Slot()), late)
    assert [len(batch.items) for batch in engine.sent] == [2, 4, 4]


async def test_request_that_disconnects_while_waiting_is_not_sent(engine: OneByOne) -> None:
    batcher = MicroBatcher(engine.embed, max_items=4, wait_ms=30)
    leaves, stays = (asyncio.ensure_future(batcher.embed(batch_of(number), Slot())) for number in (1, 2))
    await asyncio.sleep(0)
    leaves.cancel()
    assert read_numbers(await stays) == [2]
    alone = asyncio.ensure_future(batcher.embed(batch_of(3), Slot()))
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.sleep(0.06)
    assert [list(batch.items) for batch in engine.sent] == [[TextItem("2")]]


async def test_requests_with_different_options_are_not_batched_together(
    engine: OneByOne, batcher: MicroBatcher
) -> None:
    base = batch_of(1)
    requests = [
        base,
        replace(base, input_type="query"),
        replace(base, truncate="END"),
        replace(base, model=replace(MODEL, public_id="c/d")),
    ]
    await asyncio.gather(*map(freely(batcher), requests))
    sent = {(batch.model.public_id, batch.input_type, batch.truncate) for batch in engine.sent}
    assert len(engine.sent) == len(sent) == 4


async def test_long_texts_are_not_batched_together(engine: OneByOne, batcher: MicroBatcher) -> None:
    long = [make_batch(MODEL, TextItem(f"{number} " + "x" * 600)) for number in (1, 2, 3)]
    answers = await asyncio.gather(*map(freely(batcher), long))
    assert [read_numbers(answer) for answer in answers] == [[1], [2], [3]]
    assert [len(batch.items) for batch in engine.sent] == [1, 1, 1]


async def test_failed_items_are_reported_to_their_own_request(engine: OneByOne, batcher: MicroBatcher) -> None:
    engine.failing = frozenset({2, 4})
    answers = await asyncio.gather(*map(freely(batcher), [batch_of(1), batch_of(2), batch_of(3, 4)]))
    failures = [{}, {0: ItemFailure("text_too_long", "2")}, {1: ItemFailure("text_too_long", "4")}]
    assert [answer.failures for answer in answers] == failures


async def test_request_that_breaks_a_batch_fails_alone(engine: OneByOne, batcher: MicroBatcher) -> None:
    engine.poison = frozenset({3})
    answers = await asyncio.gather(*map(freely(batcher), map(batch_of, (1, 2, 3, 4))), return_exceptions=True)
    assert isinstance(answers.pop(2), EngineFaultError)
    assert [read_numbers(answer) for answer in answers] == [[1], [2], [4]]
    assert [len(batch.items) for batch in engine.sent] == [4, 1, 1, 1, 1]


async def test_disconnected_request_is_not_retried_after_a_fault(engine: OneByOne, batcher: MicroBatcher) -> None:
    engine.may_end.clear()
    engine.poison = frozenset({3})
    gate = AdmissionGate(100, 1.0, 100.0)
    left, stays, breaks = (asyncio.ensure_future(visit(batcher, gate, number)) for number in (1, 2, 3))
    while not engine.sent:
        await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    engine.may_end.set()
    assert read_numbers(await stays) == [2]
    with pytest.raises(EngineFaultError):
        await breaks
    await asyncio.sleep(0)
    assert [len(batch.items) for batch in engine.sent] == [3, 1, 1]
    assert gate.in_flight == 0


async def test_an_unavailable_engine_is_not_called_again_for_each_request(
    engine: OneByOne, batcher: MicroBatcher
) -> None:
    engine.poison, engine.error = frozenset({3}), EngineUnavailableError("gone")
    answers = await asyncio.gather(*map(freely(batcher), map(batch_of, (1, 2, 3, 4))), return_exceptions=True)
    assert [type(answer) for answer in answers] == [EngineUnavailableError] * 4
    assert len(engine.sent) == 1


async def test_early_disconnect_is_not_sent_and_late_one_keeps_its_slot(
    engine: OneByOne, batcher: MicroBatcher
) -> None:
    engine.may_end.clear()
    gate = AdmissionGate(100, 1.0, 100.0)
    early, late, stays = (asyncio.ensure_future(visit(batcher, gate, number)) for number in (1, 2, 3))
    asyncio.get_running_loop().call_soon(early.cancel)
    while not engine.sent:
        await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait([early, late])
    assert list(engine.sent[0].items) == [TextItem("2"), TextItem("3")]
    assert gate.in_flight == 20, "the slot of a request still in flight was released"
    engine.may_end.set()
    assert read_numbers(await stays) == [3]
    await asyncio.sleep(0)
    assert gate.in_flight == 0
    assert early.cancelled()
    assert late.cancelled()
