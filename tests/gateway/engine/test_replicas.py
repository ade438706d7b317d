"""Several Tritons behind one gateway: how load is spread, and what happens if one of them goes away or hangs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from gateway.engine import EmbedResult, replicas
from gateway.engine.replicas import MAX_RETRIES, resolve_targets
from gateway.engine.triton import TritonEngine
from gateway.errors import EngineUnavailableError
from gateway.settings import Settings
from gateway.types import TextItem
from tests.gateway.engine.batches import make_batch
from tests.gateway.engine.fake_triton import PUBLIC_ID, FakeTriton, ensemble_config, item_vector
from tests.service import free_ports


class Running:
    """A fake Triton that can be stopped and started again at its port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.triton = FakeTriton()
        self.server: Any = None

    async def start(self) -> None:
        self.server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self.triton, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(0)

    @property
    def served(self) -> int:
        return len(self.triton.requests)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(replicas, "CHECK_TIMEOUT_S", 0.1)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Running, Running]]:
    first, second = (Running(port) for port in free_ports(2))
    async with AsyncExitStack() as stack:
        for running in (first, second):
            await running.start()
            stack.push_async_callback(running.stop)
        yield first, second


@asynccontextmanager
async def engine_of(*runnings: Running) -> AsyncIterator[TritonEngine]:
    urls = ",".join(f"127.0.0.1:{running.port}" for running in runnings)
    engine = TritonEngine(Settings(triton_url=urls, microbatch_items=1))
    await engine.start()
    await engine.models(refresh=True)
    yield engine
    await engine.close()


async def embed(engine: TritonEngine, text: str) -> EmbedResult:
    result = await engine.embed(make_batch((await engine.models())[PUBLIC_ID], TextItem(text)))
    np.testing.assert_array_equal(result.embeddings[0], item_vector(text.encode(), b""))
    return result


async def embed_many(engine: TritonEngine, count: int) -> list[EmbedResult | BaseException]:
    work = (embed(engine, f"text {number}") for number in range(count))
    return await asyncio.gather(*work, return_exceptions=True)


def failed(answers: list[EmbedResult | BaseException]) -> int:
    return sum(isinstance(answer, BaseException) for answer in answers)


async def test_load_is_spread(pair: tuple[Running, Running]) -> None:
    async with engine_of(*pair) as engine:
        assert failed(await embed_many(engine, 200)) == 0
    assert abs(pair[0].served - pair[1].served) <= 20


async def test_requests_go_to_the_replica_with_less_to_do(pair: tuple[Running, Running]) -> None:
    busy = pair[0]
    busy.triton.is_held = True
    async with engine_of(*pair) as engine:
        held = [asyncio.ensure_future(embed(engine, "a" * 400)) for _ in range(2)]
        while not busy.served:
            await asyncio.sleep(0.01)
        before = busy.served
        for number in range(20):
            await embed(engine, f"text {number}")
        assert busy.served == before
        busy.triton.is_held = False
        await asyncio.gather(*held)


async def test_a_replica_that_goes_away_costs_no_request(pair: tuple[Running, Running]) -> None:
    gone, stays = pair
    gone.triton.delay_s = stays.triton.delay_s = 0.05
    async with engine_of(*pair) as engine:
        work = asyncio.ensure_future(embed_many(engine, 8))
        await asyncio.sleep(0.02)
        await gone.stop()
        assert failed(await work) == 0
        for _ in range(5):
            assert failed(await embed_many(engine, 8)) == 0
        await gone.start()
        before = gone.served
        async with asyncio.timeout(10):
            while gone.served == before:
                await embed(engine, "again")


async def test_retries_have_a_budget(pair: tuple[Running, Running]) -> None:
    for running in pair:
        running.triton.refusal = (grpc.StatusCode.UNAVAILABLE, "connection reset")
    async with engine_of(*pair) as engine:
        answers = await embed_many(engine, 50)
    assert all(isinstance(answer, EngineUnavailableError) for answer in answers)
    assert pair[0].served + pair[1].served <= 50 + MAX_RETRIES + 5


async def test_what_a_replica_refuses_is_not_repeated(pair: tuple[Running, Running]) -> None:
    for running in pair:
        running.triton.refusal = (grpc.StatusCode.UNAVAILABLE, "exceeds maximum queue size")
    async with engine_of(*pair) as engine:
        assert failed(await embed_many(engine, 5)) == 5
    assert pair[0].served + pair[1].served == 5


async def test_a_replica_that_hangs_is_left_alone(pair: tuple[Running, Running]) -> None:
    hung = pair[0]
    async with engine_of(*pair) as engine:
        hung.triton.is_hung = hung.triton.is_held = True
        await asyncio.sleep(0.6)
        before = hung.served
        for number in range(10):
            await embed(engine, f"text {number}")
        assert hung.served == before
        hung.triton.is_hung = hung.triton.is_held = False
        async with asyncio.timeout(10):
            while hung.served == before:
                await embed(engine, "again")


async def test_only_replicas_of_the_same_embedding_space_are_mixed(pair: tuple[Running, Running]) -> None:
    old, new = pair
    new.triton.configs = [ensemble_config("vl_text", "text", fingerprint="f01")]
    async with engine_of(*pair) as engine:
        assert (await engine.models())[PUBLIC_ID].fingerprint == "f00"
        await embed_many(engine, 20)
    assert (old.served, new.served) == (20, 0)


async def test_one_of_two_is_enough_to_start(pair: tuple[Running, Running]) -> None:
    await pair[1].stop()
    async with engine_of(*pair) as engine:
        assert failed(await embed_many(engine, 10)) == 0


async def test_every_address_of_a_name_is_a_replica() -> None:
    assert await resolve_targets(["127.0.0.1:8001"]) == ["127.0.0.1:8001"]
    assert await resolve_targets(["localhost:8001"]) == ["localhost:8001"]
    assert await resolve_targets(["localhost:8001", "[::1]:8002"]) == ["127.0.0.1:8001", "[::1]:8002"]
    assert await resolve_targets(["unix:/run/triton.sock"]) == ["unix:/run/triton.sock"]
    assert await resolve_targets(["no-such-host.invalid:1"]) == ["no-such-host.invalid:1"]
    assert await resolve_targets(["no-such-host.invalid:1", "localhost:8001"]) is None
