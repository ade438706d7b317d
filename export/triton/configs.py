"""The `config.pbtxt` of every Triton model of a public id; the two ensembles are described here."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import names
from export.serving import ServedModel
from export.triton import steps, tensors
from export.triton.steps import (
    head_inputs,
    head_output,
    image_inputs,
    preprocessed_image,
    set_parameters,
    text_inputs,
    token_id_parameters,
    vision_encoder_inputs,
    vision_encoder_output,
)
from export.triton.tensors import Tensor

_HEADER = "# Written by `python -m export`. What the tensors and parameters mean: docs/contract.md\n"


def render_repository(model: ServedModel) -> dict[str, pb.ModelConfig]:
    """Return the config of every Triton model of a public id, by name, steps first and ensembles last."""
    prefix = names.slug(model.identity.public_id)
    spec, serving = model.spec, model.serving
    text, image = names.ENSEMBLES[spec.task]["text"], names.ENSEMBLES[spec.task]["image"]
    builders = {
        names.PREPROCESSING[text]: lambda name: steps.preprocess_text(name, model),
        names.PREPROCESSING[image]: lambda name: steps.preprocess_image(name, spec, serving.images(spec.task)),
        names.VISION_ENCODER: lambda name: steps.vision_encoder(name, spec, serving),
        names.HEADS[spec.task]: lambda name: steps.head(name, spec, serving),
        text: lambda name: _text_ensemble(model, prefix, text),
        image: lambda name: _image_ensemble(model, prefix, image),
    }
    served = names.model_names(model.identity.public_id, spec.modalities, spec.task)
    return {name: builders[name.removeprefix(f"{prefix}_")](name) for name in served}


def to_text(config: pb.ModelConfig) -> str:
    """Return a config in Triton's text format."""
    return _HEADER + str(text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True))


def _text_ensemble(model: ServedModel, prefix: str, name: str) -> pb.ModelConfig:
    """Return the ensemble from `text` to `embeddings` or `scores`, the only one that carries the manifest."""
    spec = model.spec
    inputs, between, output = text_inputs(spec), head_inputs(spec), head_output(spec)
    config = _ensemble(f"{prefix}_{name}", inputs, (output, *tensors.TEXT_RESULTS))
    _add_step(config, f"{prefix}_{names.PREPROCESSING[name]}", inputs, (*between, *tensors.TEXT_RESULTS))
    _add_step(config, f"{prefix}_{names.HEADS[spec.task]}", between, (output,))
    set_parameters(config, {"modality": "text", **token_id_parameters(model), **_identity(model)})
    if model.padded_tokens:
        set_parameters(config, {"padded_tokens": str(model.padded_tokens)})
    if model.identity.manifest is not None:
        set_parameters(config, {"manifest": model.identity.manifest})
    if model.identity.golden is not None:
        set_parameters(config, {"golden": model.identity.golden})
    return config


def _image_ensemble(model: ServedModel, prefix: str, name: str) -> pb.ModelConfig:
    """Return the ensemble from encoded images to `embeddings` or `scores`."""
    spec, image = model.spec, model.spec.image
    if image is None:
        raise ValueError("a model without images has no image ensemble")
    inputs, output, encoded = image_inputs(spec), head_output(spec), vision_encoder_output(spec)
    config = _ensemble(f"{prefix}_{name}", inputs, (output, *tensors.IMAGE_RESULTS))
    preprocessed = (*preprocessed_image(image), *tensors.IMAGE_RESULTS)
    _add_step(config, f"{prefix}_{names.PREPROCESSING[name]}", inputs, preprocessed)
    _add_step(config, f"{prefix}_{names.VISION_ENCODER}", vision_encoder_inputs(image), (encoded,))
    if encoded != output:
        _add_step(config, f"{prefix}_{names.HEADS[spec.task]}", head_inputs(spec), (output,))
    values = {
        "modality": "image",
        "max_tiles": str(image.max_tiles_with_thumbnail),
        "tokens_per_tile": str(image.tokens_per_tile),
        "max_image_bytes": str(model.serving.images(spec.task).max_image_bytes),
    }
    set_parameters(config, {**values, **_identity(model)})
    return config


def _ensemble(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> pb.ModelConfig:
    """Return an ensemble without steps; its batch size of 1 only adds the leading 1 of every shape."""
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=1,
        input=[tensor.as_input(ragged=False) for tensor in inputs],
        output=[tensor.as_output() for tensor in outputs],
    )


def _add_step(config: pb.ModelConfig, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Add a step whose tensors have the same names in the ensemble."""
    config.ensemble_scheduling.step.add(
        model_name=name,
        model_version=-1,
        input_map={tensor.name: tensor.name for tensor in inputs},
        output_map={tensor.name: tensor.name for tensor in outputs},
    )


def _identity(model: ServedModel) -> dict[str, str]:
    identity = model.identity
    values = {
        "public_id": identity.public_id,
        "max_tokens": str(model.spec.max_tokens),
        "precision": identity.precision,
        "license": identity.license,
    }
    if model.spec.rank:
        values |= {"task": "rank", "activation": model.spec.rank.activation}
    else:
        values["dimensions"] = str(model.spec.dimensions)
    if identity.fingerprint is not None:
        values["fingerprint"] = identity.fingerprint
    return values
