"""Finds the models that Triton serves, by its repository index and its ensembles' parameters (`docs/contract.md`)."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tritonclient.grpc import service_pb2

from gateway.engine.chunking import EnsembleModality
from gateway.engine.golden import read_golden, read_golden_score
from gateway.engine.grpc_errors import grpc_errors_translated
from gateway.engine.interface import DEFAULT_MAX_IMAGE_BYTES, ServedModel
from gateway.types import Task

logger = logging.getLogger(__name__)

ENSEMBLE_NAME = re.compile(r"(.+?)(?<!_preprocess)(?<!_preprocess_rank)_(?:text|image|rank|rank_image)")
"""Name of a public id's ensemble: its slug, and its task or modality. Those of steps may end in the same way."""


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
    """

    name: str
    modality: EnsembleModality
    parameters: Mapping[str, str]
    inputs: frozenset[str]
    outputs: frozenset[str]
    preprocessing: str


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
    ensembles: dict[str, dict[EnsembleModality, Ensemble]] = {}
    with grpc_errors_translated():
        index = (await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=timeout_s)).models
        ready = {model.name for model in index if model.state == "READY"}
        for name in sorted(ready):
            response = await stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=timeout_s)
            ensemble = read_ensemble(response.config)
            if ensemble is not None:
                ensembles.setdefault(ensemble.parameters["public_id"], {}).setdefault(ensemble.modality, ensemble)
    broken = {slug for model in index if model.name not in ready and (slug := read_slug(model.name))}
    slugs = {public_id: {read_slug(each.name) for each in found.values()} for public_id, found in ensembles.items()}
    known = {public_id for public_id in ensembles if slugs[public_id] & broken}
    models = {}
    for public_id in sorted(ensembles.keys() - known):
        model = combine_ensembles(public_id, ensembles[public_id])
        if model is not None:
            models[public_id] = model
    if any(model.served.precision == "int8" for model in models.values()):
        with grpc_errors_translated():
            server = await stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=timeout_s)
        models = {public_id: name_engine(model, server) for public_id, model in models.items()}
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


def read_ensemble(config: Any) -> Ensemble | None:
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
    return Ensemble(config.name, modality, parameters, inputs, outputs, steps[0].model_name if steps else "")


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
            task=task,
            precision=text.parameters.get("precision", "fp32"),
            license=text.parameters.get("license", ""),
            fingerprint=text.parameters.get("fingerprint", ""),
            max_tiles=int(image_parameters["max_tiles"]),
            tokens_per_tile=int(image_parameters["tokens_per_tile"]),
            max_image_bytes=int(image_parameters.get("max_image_bytes", DEFAULT_MAX_IMAGE_BYTES)),
            checks_token_ids="token_id_policy" in text.inputs
            and text.parameters.get("token_ids_round_trip", "true") == "true",
            manifest=json.loads(text.parameters.get("manifest", "{}")),
            golden=read_golden_score(golden) if task == "rank" else read_golden(golden, dimensions),
        )
    except (KeyError, ValueError) as error:
        logger.error("ignoring model %s: its parameters are incomplete: %r", public_id, error)
        return None
    return TritonModel(served, ensembles)
