"""A gRPC server that speaks as much of Triton's protocol as the gateway asks for and answers at once.

`python -m bench.instant_triton REPOSITORY PORT`. What the gateway costs shows best where nothing else does.
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

TOKENS = 14
"""Of every item, by its word."""


class InstantTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The configs of a repository, and for every text the same unit vector."""

    def __init__(self, repository: Path) -> None:
        """Read all configs."""
        self.configs = {
            path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            for path in repository.glob("*/config.pbtxt")
        }
        self.answers: dict[tuple[str, int], Any] = {}

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """List the models."""
        models = [{"name": name, "version": "1", "state": "READY"} for name in self.configs]
        return service_pb2.RepositoryIndexResponse(models=models)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Return a model's config."""
        return service_pb2.ModelConfigResponse(config=self.configs[request.name])

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Return the same answer to every request of as many items."""
        key = (request.model_name, request.inputs[0].shape[1])
        if key not in self.answers:
            self.answers[key] = self.make_answer(*key)
        return self.answers[key]

    def make_answer(self, model: str, count: int) -> Any:
        """Return unit vectors of the model's size, plausible counts and no errors, for so many items."""
        dimensions = int(self.configs[model].parameters["dimensions"].string_value)
        vector = np.random.default_rng(0).standard_normal(dimensions).astype(np.float32)
        vectors = np.tile(vector / np.linalg.norm(vector), (count, 1)).astype(np.float32)
        counts = np.full(count, TOKENS, np.int32).tobytes()
        answer = service_pb2.ModelInferResponse(model_name=model)
        for name, datatype, shape, raw in (
            ("embeddings", "FP32", (1, count, dimensions), vectors.tobytes()),
            *((name, "INT32", (1, count), counts) for name in ("token_counts", "image_token_counts", "tile_counts")),
            ("errors", "BYTES", (1, count), b"\0\0\0\0" * count),
        ):
            answer.outputs.add(name=name, datatype=datatype, shape=shape)
            answer.raw_output_contents.append(raw)
        return answer


async def serve(repository: Path, port: int) -> None:
    """Answer until the process is ended."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InstantTriton(repository), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
