"""The Triton engine, over a gRPC server that speaks Triton's protocol."""

from collections.abc import AsyncIterator

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from gateway.engine.triton import TritonEngine
from gateway.settings import Settings
from tests.gateway.engine.fake_triton import FakeTriton


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
async def port(triton: FakeTriton) -> AsyncIterator[int]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


@pytest.fixture
async def engine(port: int) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", chunk_items=4, chunk_concurrency=3))
    await engine.start()
    yield engine
    await engine.close()
