"""Finds the models that Triton serves, by its repository index and its ensembles' parameters (`docs/contract.md`)."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from gateway.engine.chunking import EnsembleModality
from gateway.engine.grpc_errors import grpc_errors_translated
from gateway.engine.interface import DEFAULT_MAX_IMAGE_BYTES, ServedModel

logger = logging.getLogger(__name__)


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


async def discover_models(stub: Any, timeout_s: float) -> dict[str, TritonModel]:
    """Ask Triton what it serves.

    Args:
        stub: A `GRPCInferenceServiceStub` of an asyncio channel.
        timeout_s: Limit for each call.

    Returns:
        The models that have a text ensemble, by public id, sorted.

    Raises:
        EngineUnavailableError: Triton cannot be reached.
    """
    ensembles: dict[str, dict[EnsembleModality, Ensemble]] = {}
    with grpc_errors_translated():
        index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=timeout_s)
        for name in sorted({model.name for model in index.models}):
            response = await stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=timeout_s)
            ensemble = read_ensemble(response.config)
            if ensemble is not None:
                ensembles.setdefault(ensemble.parameters["public_id"], {}).setdefault(ensemble.modality, ensemble)
    models = {}
    for public_id, by_modality in sorted(ensembles.items()):
        model = combine_ensembles(public_id, by_modality)
        if model is not None:
            models[public_id] = model
    return models


def read_ensemble(config: Any) -> Ensemble | None:
    """Return the entry point that a Triton `ModelConfig` describes, or None for a step or a model that is not ours."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    modality = parameters.get("modality")
    if not config.HasField("ensemble_scheduling") or "public_id" not in parameters:
        return None
    if modality != "text" and modality != "image":
        logger.error("ignoring model %s: its modality is neither text nor image", config.name)
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
    image_parameters = image.parameters if image else {"max_tiles": "0", "tokens_per_tile": "0"}
    try:
        served = ServedModel(
            public_id=public_id,
            dimensions=int(text.parameters["dimensions"]),
            max_tokens=int(text.parameters["max_tokens"]),
            takes_images=image is not None,
            takes_pdfs=image is not None and "page" in image.inputs,
            precision=text.parameters.get("precision", "fp32"),
            license=text.parameters.get("license", ""),
            fingerprint=text.parameters.get("fingerprint", ""),
            max_tiles=int(image_parameters["max_tiles"]),
            tokens_per_tile=int(image_parameters["tokens_per_tile"]),
            max_image_bytes=int(image_parameters.get("max_image_bytes", DEFAULT_MAX_IMAGE_BYTES)),
            checks_token_ids="token_id_policy" in text.inputs
            and text.parameters.get("token_ids_round_trip", "true") == "true",
            manifest=json.loads(text.parameters.get("manifest", "{}")),
        )
    except (KeyError, ValueError) as error:
        logger.error("ignoring model %s: its parameters are incomplete: %r", public_id, error)
        return None
    return TritonModel(served, ensembles)
