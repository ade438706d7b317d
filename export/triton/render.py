"""From a served model to the text of its `config.pbtxt` files."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import names
from export.spec import ServedModel
from export.triton import ensembles, steps

_HEADER = "# Written by `python -m export`. What the tensors and parameters mean: docs/contract.md\n"


def render_repository(model: ServedModel) -> dict[str, pb.ModelConfig]:
    """Return the config of every Triton model of a public id, by name, steps first and ensembles last."""
    prefix = names.slug(model.identity.public_id)
    spec, serving = model.spec, model.serving
    builders = {
        names.PREPROCESS_TEXT: lambda name: steps.preprocess_text(name, spec, serving),
        names.PREPROCESS_IMAGE: lambda name: steps.preprocess_image(name, spec, serving),
        names.VISION_ENCODER: lambda name: steps.vision_encoder(name, spec, serving),
        names.EMBEDDER: lambda name: steps.embedder(name, spec, serving),
        names.TEXT: lambda name: ensembles.text_ensemble(model, prefix),
        names.IMAGE: lambda name: ensembles.image_ensemble(model, prefix),
    }
    served = names.model_names(model.identity.public_id, spec.modalities)
    return {name: builders[name.removeprefix(f"{prefix}_")](name) for name in served}


def to_text(config: pb.ModelConfig) -> str:
    """Return a config as Triton's text format reads it."""
    return _HEADER + str(text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True))
