"""Which models Triton serves: its repository index, and the parameters of its ensembles (`docs/contract.md`)."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from gateway.engine.chunking import EnsembleModality
from gateway.engine.grpc_errors import grpc_errors_translated
from gateway.engine.interface import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """One entry point of a model.

    Attributes:
        name: of the Triton model.
        modality: `text`, or `image`, which takes texts beside pictures too.
        parameters: the contract's keys, as strings.
        inputs: names of the inputs it declares.
    """

    name: str
    modality: EnsembleModality
    parameters: Mapping[str, str]
    inputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A served model and where Triton keeps it.

    Attributes:
        served: what the gateway and its clients know of it.
        ensembles: its entry points by modality; `text` is always there.
    """

    served: ServedModel
    ensembles: Mapping[EnsembleModality, Ensemble] = field(default_factory=dict)


async def discover_models(stub: Any, timeout_s: float) -> dict[str, TritonModel]:
    """Asks Triton what it serves.

    Args:
        stub: a `GRPCInferenceServiceStub` of an asyncio channel.
        timeout_s: seconds each question may take.

    Returns:
        The models that have a text ensemble, by public id, in the order of their ids.

    Raises:
        EngineUnavailableError: nobody answers.
    """
    ensembles: dict[str, dict[EnsembleModality, Ensemble]] = {}
    with grpc_errors_translated():
        index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=timeout_s)
        for name in sorted({model.name for model in index.models}):
            answer = await stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=timeout_s)
            ensemble = read_ensemble(answer.config)
            if ensemble is not None:
                ensembles.setdefault(ensemble.parameters["public_id"], {}).setdefault(ensemble.modality, ensemble)
    models = {}
    for public_id, by_modality in sorted(ensembles.items()):
        model = describe_model(public_id, by_modality)
        if model is not None:
            models[public_id] = model
    return models


def read_ensemble(config: Any) -> Ensemble | None:
    """The entry point that a config describes.

    Args:
        config: a Triton `ModelConfig` message.

    Returns:
        The ensemble, or None for a model that is a step or none of ours.
    """
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    modality = parameters.get("modality")
    if not config.HasField("ensemble_scheduling") or "public_id" not in parameters:
        return None
    if modality != "text" and modality != "image":
        logger.error("model %s is left out: its modality is neither text nor image", config.name)
        return None
    inputs = frozenset(tensor.name for tensor in config.input)
    return Ensemble(config.name, modality, parameters, inputs)


def describe_model(public_id: str, ensembles: Mapping[EnsembleModality, Ensemble]) -> TritonModel | None:
    """Puts together what the ensembles of one public id say.

    Returns:
        The model, or None, logged, where the text ensemble or a number is missing.
    """
    text = ensembles.get("text")
    if text is None:
        logger.error("model %s is left out: it has no text ensemble", public_id)
        return None
    image = ensembles.get("image")
    try:
        served = ServedModel(
            public_id=public_id,
            dimensions=int(text.parameters["dimensions"]),
            max_tokens=int(text.parameters["max_tokens"]),
            takes_images=image is not None,
            precision=text.parameters.get("precision", "fp32"),
            license=text.parameters.get("license", ""),
            fingerprint=text.parameters.get("fingerprint", ""),
            max_tiles=int(image.parameters["max_tiles"]) if image else 0,
            tokens_per_tile=int(image.parameters["tokens_per_tile"]) if image else 0,
            manifest=json.loads(text.parameters.get("manifest", "{}")),
        )
    except (KeyError, ValueError) as error:
        logger.error("model %s is left out: its parameters are incomplete: %r", public_id, error)
        return None
    return TritonModel(served, ensembles)
