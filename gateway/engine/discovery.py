"""Finds the models that Triton serves, by its repository index and its ensembles' parameters (`docs/contract.md`)."""

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from gateway.engine.chunking import EnsembleModality
from gateway.engine.golden import read_golden, read_golden_score
from gateway.engine.grpc_errors import grpc_errors_translated, is_gone
from gateway.engine.interface import DEFAULT_MAX_IMAGE_BYTES, ServedModel
from gateway.types import Task

logger = logging.getLogger(__name__)

ENSEMBLE_NAME = re.compile(r"(.+?)(?<!_preprocess)(?<!_preprocess_rank)_(?:text|image|rank|rank_image)")
"""Name of a public id's ensemble: its slug, and its task or modality. Those of steps may end in the same way."""

MAX_READS = 10
READ_INTERVAL_S = 0.2
"""While a model is replaced, its ensembles change one after the other: then the list is read again, so often."""

LEAVING = frozenset({"UNLOADING", "unloaded"})
"""States of a model, and reasons for them, that is not unavailable, but was removed."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """One entry point of a model.

    Attributes:
        name: Of the Triton model.
        modality: `text`, or `image`, which also takes texts beside images.
        parameters: The contract's keys, as strings.
        inputs: Names of the inputs it declares.
        outputs: Names of the outputs it declares.
        preprocessing: Name of its first step.
        version: Of the Triton model; requests name it, so that they are refused once another has taken its place.
    """

    name: str
    modality: EnsembleModality
    parameters: Mapping[str, str]
    inputs: frozenset[str]
    outputs: frozenset[str]
    preprocessing: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A served model and its entry points.

    Attributes:
        served: What the gateway and its clients know of it.
        ensembles: By modality; `text` is always there.
    """

    served: ServedModel
    ensembles: Mapping[EnsembleModality, Ensemble]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a Triton serves.

    Attributes:
        models: Those of which every ensemble is ready, by public id, sorted.
        unavailable: Those of which an ensemble could not be loaded: public ids or, where unknown, slugs.
    """

    models: Mapping[str, TritonModel]
    unavailable: frozenset[str]


async def discover_models(stub: Any, timeout_s: float) -> Discovery:
    """Ask Triton what it serves.

    Args:
        stub: A `GRPCInferenceServiceStub` of an asyncio channel.
        timeout_s: Limit for each call.

    Raises:
        EngineUnavailableError: Triton cannot be reached.
    """
    with grpc_errors_translated():
        for _ in range(MAX_READS):
            index = (await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=timeout_s)).models
            ensembles = await read_ensembles(stub, index, timeout_s)
            if ensembles is not None and not any(map(is_mixed, ensembles.values())):
                break
            await asyncio.sleep(READ_INTERVAL_S)
        found = sort_models(index, {key: group for key, group in (ensembles or {}).items() if not is_mixed(group)})
        if all(model.served.precision != "int8" for model in found.models.values()):
            return found
        server = await stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=timeout_s)
    return replace(found, models={name: name_engine(model, server) for name, model in found.models.items()})


async def read_ensembles(
    stub: Any, index: Sequence[Any], timeout_s: float
) -> dict[str, dict[EnsembleModality, Ensemble]] | None:
    """Read the entry points that are ready, by public id.

    Args:
        stub: As that of `discover_models`.
        index: Triton's repository index.
        timeout_s: Limit for each call.

    Returns:
        None if one is not there any more.
    """
    ensembles: dict[str, dict[EnsembleModality, Ensemble]] = {}
    versions = {model.name: model.version for model in index if model.state == "READY"}
    for name, version in sorted(versions.items()):
        try:
            request = service_pb2.ModelConfigRequest(name=name, version=version)
            response = await stub.ModelConfig(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if is_gone(error):
                return None
            raise
        ensemble = read_ensemble(response.config, version)
        if ensemble is not None:
            ensembles.setdefault(ensemble.parameters["public_id"], {}).setdefault(ensemble.modality, ensemble)
    return ensembles


def is_mixed(ensembles: Mapping[EnsembleModality, Ensemble]) -> bool:
    """Return whether only some of a model's ensembles have been replaced yet."""
    return len({ensemble.parameters.get("fingerprint") for ensemble in ensembles.values()}) > 1


def sort_models(index: Sequence[Any], ensembles: Mapping[str, Mapping[EnsembleModality, Ensemble]]) -> Discovery:
    """Return which models are served, and which are unavailable.

    Args:
        index: Triton's repository index.
        ensembles: Those that are ready, by public id.
    """
    ready = {model.name for model in index if model.state == "READY"}
    absent = {model.name for model in index if LEAVING.isdisjoint((model.state, model.reason))} - ready
    broken = {slug for name in absent if (slug := read_slug(name))}
    slugs = {public_id: {read_slug(each.name) for each in found.values()} for public_id, found in ensembles.items()}
    known = {public_id for public_id in ensembles if slugs[public_id] & broken}
    models = {}
    for public_id in sorted(ensembles.keys() - known):
        model = combine_ensembles(public_id, ensembles[public_id])
        if model is not None:
            models[public_id] = model
    return Discovery(models, frozenset(known.union(broken.difference(*(slugs[public_id] for public_id in known)))))


def name_engine(model: TritonModel, server: Any) -> TritonModel:
    """Return the model with a fingerprint that names its engine, if that decides its vectors.

    Args:
        model: What Triton serves.
        server: Triton's answer to `ServerMetadata`. An ONNX Runtime that is not the one of its release is its name.
    """
    if model.served.precision != "int8" or not model.served.fingerprint:
        return model
    engine = server.name if server.name.startswith("onnxruntime-") else f"triton-{server.version}"
    return replace(model, served=replace(model.served, fingerprint=f"{model.served.fingerprint}-{engine}"))


def read_slug(name: str) -> str:
    """Return what the name of an ensemble begins with, which all models of its public id share; empty for a step."""
    found = ENSEMBLE_NAME.fullmatch(name)
    return found[1] if found else ""


def make_slug(public_id: str) -> str:
    """Return what the names of a public id's Triton models begin with; a slug's own is itself."""
    return re.sub(r"[^a-z0-9]", "_", public_id.rsplit("/", 1)[-1].lower())


def read_ensemble(config: Any, version: str) -> Ensemble | None:
    """Return the entry point that a Triton `ModelConfig` describes, or None for a step or a model that is not ours."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    modality = parameters.get("modality")
    if not config.HasField("ensemble_scheduling") or "public_id" not in parameters:
        return None
    if modality != "text" and modality != "image":
        logger.error("ignoring model %s: its modality is neither text nor image", config.name)
        return None
    if parameters.get("task", "embed") not in ("embed", "rank"):
        logger.error("ignoring model %s: its task is neither embed nor rank", config.name)
        return None
    inputs = frozenset(tensor.name for tensor in config.input)
    steps = config.ensemble_scheduling.step
    outputs = frozenset(tensor.name for tensor in config.output)
    preprocessing = steps[0].model_name if steps else ""
    return Ensemble(config.name, modality, parameters, inputs, outputs, preprocessing, version)


def combine_ensembles(public_id: str, ensembles: Mapping[EnsembleModality, Ensemble]) -> TritonModel | None:
    """Return the model that the ensembles of one public id make.

    Returns:
        None, with an error logged, if the text ensemble or a number is missing.
    """
    text = ensembles.get("text")
    if text is None:
        logger.error("ignoring model %s: it has no text ensemble", public_id)
        return None
    image = ensembles.get("image")
    task: Task = "rank" if text.parameters.get("task") == "rank" else "embed"
    golden = text.parameters.get("golden")
    image_parameters = image.parameters if image else {"max_tiles": "0", "tokens_per_tile": "0"}
    try:
        dimensions = 1 if task == "rank" else int(text.parameters["dimensions"])
        served = ServedModel(
            public_id=public_id,
            dimensions=dimensions,
            max_tokens=int(text.parameters["max_tokens"]),
            takes_images=image is not None,
            takes_pdfs=image is not None and "page" in image.inputs,
            takes_text_with_images=image is None or "text" in image.inputs,
            task=task,
            precision=text.parameters.get("precision", "fp32"),
            license=text.parameters.get("license", ""),
            fingerprint=text.parameters.get("fingerprint", ""),
            max_tiles=int(image_parameters["max_tiles"]),
            tokens_per_tile=int(image_parameters["tokens_per_tile"]),
            padded_tokens=int(text.parameters.get("padded_tokens", "0")),
            max_image_bytes=int(image_parameters.get("max_image_bytes", DEFAULT_MAX_IMAGE_BYTES)),
            takes_prompts="prompt" in text.inputs,
            checks_token_ids="token_id_policy" in text.inputs
            and text.parameters.get("token_ids_round_trip", "true") == "true",
            manifest=json.loads(text.parameters.get("manifest", "{}")),
            golden=read_golden_score(golden) if task == "rank" else read_golden(golden, dimensions),
        )
    except (KeyError, ValueError) as error:
        logger.error("ignoring model %s: its parameters are incomplete: %r", public_id, error)
        return None
    return TritonModel(served, ensembles)
