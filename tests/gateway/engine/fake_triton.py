"""A gRPC server that speaks as much of Triton's protocol as the contract needs; vectors are hashes of the items."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from gateway.engine.wire import decode_bytes, encode_bytes

PUBLIC_ID = "nvidia/llama-nemotron-embed-vl-1b-v2"
DIMENSIONS = 8


INPUTS = {"text": ("text", "token_ids", "token_id_policy"), "image": ("image", "page", "text")}
OUTPUTS = {
    "text": ("embeddings", "token_counts", "untruncated_token_counts", "errors"),
    "image": (
        "embeddings",
        "token_counts",
        "untruncated_token_counts",
        "image_token_counts",
        "tile_counts",
        "page_counts",
        "errors",
    ),
}


RANK_INPUTS = {"text": ("query", "text", "truncate"), "image": ("query", "image", "page", "text", "truncate")}


def rank_config(name: str, modality: str, **changes: str) -> Any:
    """The config of an ensemble that ranks; arguments as those of `ensemble_config`."""
    config = ensemble_config(name, modality, is_old=False, **{"dimensions": "", "task": "rank"} | changes)
    del config.input[:]
    for tensor in RANK_INPUTS[modality]:
        config.input.add(name=tensor)
    config.output[0].name = "scores"
    return config


def ensemble_config(name: str, modality: str, *, is_old: bool = False, **changes: str) -> Any:
    """The config of an ensemble as an export writes it; a change to an empty text takes the parameter away.

    Args:
        name: Of the ensemble.
        modality: `text` or `image`.
        is_old: Leave out what older exports do not have.
        changes: Of parameters.
    """
    parameters = {
        "public_id": PUBLIC_ID,
        "modality": modality,
        "dimensions": str(DIMENSIONS),
        "max_tokens": "100",
        "precision": "fp32",
        "license": "Apache-2.0",
        "fingerprint": "f00",
        "manifest": '{"created": 7}',
    }
    if modality == "image":
        parameters |= {"max_tiles": "7", "tokens_per_tile": "256"}
    config = model_config_pb2.ModelConfig(name=name, max_batch_size=1)
    config.ensemble_scheduling.step.add(model_name=f"preprocess_{name}")
    for tensor in INPUTS.get(modality, ()):
        if not (is_old and tensor in ("token_id_policy", "page")):
            config.input.add(name=tensor)
    for tensor in OUTPUTS.get(modality, ()):
        if not (is_old and tensor in ("untruncated_token_counts", "page_counts")):
            config.output.add(name=tensor)
    for key, value in (parameters | changes).items():
        if value:
            config.parameters[key].string_value = value
    return config


def step_config(name: str) -> Any:
    """The config of a model that is no ensemble."""
    config = model_config_pb2.ModelConfig(name=name, backend="onnxruntime")
    config.parameters["modality"].string_value = "text"
    return config


def item_vector(text: bytes, image: bytes) -> np.ndarray:
    """The vector of one item."""
    digest = hashlib.sha256(text + b"|" + image).digest()[:DIMENSIONS]
    return np.frombuffer(digest, np.uint8).astype(np.float32) / 255


def item_score(query: bytes, text: bytes, image: bytes) -> float:
    """The score of one item."""
    return float(item_vector(query + b"|" + text, image)[0])


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The servicer.

    Attributes:
        configs: of the models in the repository.
        requests: that came for inference.
        delay_s: how long an inference takes.
        is_held: whether inferences wait until this is false.
        is_hung: whether nobody learns that it is live until this is false.
        refusal: what inference is refused with, or None.
        outputs_left_out: names of outputs that do not come.
        not_loaded: names of models that are in the repository and could not be loaded.
        versions: of models that have another than 1; any other is unknown.
        unloaded: names of models that were removed.
        name: what it was started as.
        in_flight, most_in_flight: inferences at a time.
        abandoned: inferences that their caller cancelled.
    """

    configs: list[Any] = field(
        default_factory=lambda: [
            ensemble_config("vl_text", "text"),
            ensemble_config("vl_image", "image"),
            step_config("vl_embedder"),
        ]
    )
    requests: list[Any] = field(default_factory=list)
    delay_s: float = 0.0
    is_held: bool = False
    is_hung: bool = False
    refusal: tuple[grpc.StatusCode, str] | None = None
    outputs_left_out: frozenset[str] = frozenset()
    not_loaded: frozenset[str] = frozenset()
    versions: dict[str, str] = field(default_factory=dict)
    unloaded: frozenset[str] = frozenset()
    in_flight: int = 0
    most_in_flight: int = 0
    abandoned: int = 0
    index_questions: int = 0
    name: str = "triton"

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.index_questions += 1
        answer = service_pb2.RepositoryIndexResponse()
        for config in self.configs:
            state = "" if config.name in self.not_loaded else "READY"
            answer.models.add(name=config.name, version=self.versions.get(config.name, "1"), state=state)
        for name in self.unloaded:
            answer.models.add(name=name, version="1", state="UNAVAILABLE", reason="unloaded")
        return answer

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return service_pb2.ServerMetadataResponse(name=self.name, version="2.61.0")

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        while self.is_hung:
            await asyncio.sleep(0.01)
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        await self.check_version(request.name, request.version, context)
        return service_pb2.ModelConfigResponse(config=next(c for c in self.configs if c.name == request.name))

    async def check_version(self, name: str, version: str, context: Any) -> None:
        if version not in ("", self.versions.get(name, "1")):
            details = f"Request for unknown model: '{name}' version {version} is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, details)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        await self.check_version(request.model_name, request.model_version, context)
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            while self.is_held:
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self.in_flight -= 1
        if self.refusal:
            await context.abort(*self.refusal)
        return self.answer(request)

    def answer(self, request: Any) -> Any:
        inputs = read_inputs(request)
        texts = inputs.get("text")
        images = inputs.get("image", [b""] * len(texts or []))
        texts = texts or [b""] * len(images)
        errors = [b"text_too_long: it is" if b"long" in text else b"" for text in texts]
        vectors = np.stack([item_vector(text, image) for text, image in zip(texts, images, strict=True)])
        vectors[[bool(error) for error in errors]] = np.nan
        count = len(texts)
        counts = np.arange(1, count + 1, dtype=np.int32)
        outputs = {
            "embeddings": ("FP32", (1, count, DIMENSIONS), vectors.tobytes()),
            "token_counts": ("INT32", (1, count), counts.tobytes()),
            "untruncated_token_counts": ("INT32", (1, count), (counts + 3).tobytes()),
            "errors": ("BYTES", (1, count), encode_bytes(errors)),
        }
        if "query" in inputs:
            [query] = inputs["query"]
            scores = [item_score(query, text, image) for text, image in zip(texts, images, strict=True)]
            raw = np.where([bool(error) for error in errors], np.nan, scores).astype("<f4").tobytes()
            outputs["scores"] = ("FP32", (1, count), raw)
            del outputs["embeddings"]
        if "image" in inputs:
            outputs["image_token_counts"] = ("INT32", (1, count), (counts * 256).tobytes())
            outputs["tile_counts"] = ("INT32", (1, count), counts.tobytes())
            pages = inputs.get("page", np.zeros(count, np.int32))
            outputs["page_counts"] = ("INT32", (1, count), (7 * (pages > 0)).astype(np.int32).tobytes())
        if request.model_name.startswith("preprocess_"):
            outputs = {name: output for name, output in outputs.items() if name not in ("embeddings", "scores")}
            asked = {output.name for output in request.outputs}
            if "input_ids" in asked:
                outputs["sequence_lengths"] = ("INT32", (1, count), counts.tobytes())
                total = int(counts.sum())
                outputs["input_ids"] = ("INT64", (1, total), np.arange(total, dtype=np.int64).tobytes())
            assert asked == outputs.keys()
        message = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, (datatype, shape, raw) in outputs.items():
            if name not in self.outputs_left_out:
                message.outputs.add(name=name, datatype=datatype, shape=shape)
                message.raw_output_contents.append(raw)
        return message


def read_inputs(request: Any) -> dict[str, Any]:
    """The inputs of a request by name: lists of bytes, or arrays."""
    inputs: dict[str, Any] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            inputs[tensor.name] = decode_bytes(raw, tensor.shape[1])
        else:
            inputs[tensor.name] = np.frombuffer(raw, {"INT64": "<i8", "INT32": "<i4"}[tensor.datatype])
    return inputs
