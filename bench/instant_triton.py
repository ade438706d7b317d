"""A gRPC server that implements as much of Triton's protocol as the gateway needs, and responds immediately.

It shows what the gateway alone costs. Run as `python -m bench.instant_triton REPOSITORY PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

# Reported for every item.
TOKENS_PER_ITEM = 14


class InstantTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The configurations of a repository, and the same unit vector for every text."""

    def __init__(self, repository: Path) -> None:
        self.configs = {
            path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            for path in repository.glob("*/config.pbtxt")
        }
        self.responses: dict[tuple[str, int], Any] = {}

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """List the models."""
        models = [{"name": name, "version": "1", "state": "READY"} for name in self.configs]
        return service_pb2.RepositoryIndexResponse(models=models)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Return the configuration of a model."""
        return service_pb2.ModelConfigResponse(config=self.configs[request.name])

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Return the same response to every request with the same number of items."""
        key = (request.model_name, request.inputs[0].shape[1])
        if key not in self.responses:
            self.responses[key] = self._make_response(*key)
        return self.responses[key]

    def _make_response(self, model: str, count: int) -> Any:
        """Return unit vectors of the model's size, plausible token counts and no errors, for `count` items."""
        dimensions = int(self.configs[model].parameters["dimensions"].string_value)
        vector = np.random.default_rng(0).standard_normal(dimensions).astype(np.float32)
        vectors = np.tile(vector / np.linalg.norm(vector), (count, 1)).astype(np.float32)
        counts = np.full(count, TOKENS_PER_ITEM, np.int32).tobytes()
        response = service_pb2.ModelInferResponse(model_name=model)
        for name, datatype, shape, raw in (
            ("embeddings", "FP32", (1, count, dimensions), vectors.tobytes()),
            *((name, "INT32", (1, count), counts) for name in ("token_counts", "image_token_counts", "tile_counts")),
            ("errors", "BYTES", (1, count), b"\0\0\0\0" * count),
        ):
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(raw)
        return response


async def serve(repository: Path, port: int) -> None:
    """Serve until the process is terminated."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InstantTriton(repository), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
