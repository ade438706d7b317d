"""How Triton runs a model: options of each step, set by `--set STEP.OPTION=VALUE` and editable in `config.pbtxt`.

None of them changes an embedding, so none is part of the fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pydantic
from pydantic import BaseModel, Field

from export.errors import ServingOptionError
from export.spec import Identity, ModelSpec, Target, Task

MAX_INT32 = (1 << 31) - 1


class StepOptions(BaseModel, frozen=True, extra="forbid"):
    """Options of every step."""

    max_batch_size: int = Field(64, ge=1, le=MAX_INT32, description="maximum number of requests in a batch")
    max_queue_delay_us: int = Field(
        0, ge=0, le=MAX_INT32, description="maximum time a batch waits for more requests, in microseconds"
    )
    instances: int = Field(1, ge=1, le=1024, description="number of instances")


class GraphOptions(StepOptions, frozen=True):
    """Options of a step that runs an ONNX graph."""

    intra_op_threads: int | None = Field(None, ge=1, le=1024, description="threads of an instance; unset: all cores")
    max_batch_rows: int = Field(
        16384, ge=1, le=MAX_INT32, description="maximum tokens of a batch of several requests, on a GPU"
    )


class VisionEncoderOptions(GraphOptions, frozen=True):
    """Options of the vision encoder, whose requests consist of whole tiles."""

    max_batch_size: int = Field(8, ge=1, le=MAX_INT32, description="maximum number of requests in a batch")
    max_batch_rows: int = Field(
        32 * 256,
        ge=1,
        le=MAX_INT32,
        description="maximum image tokens of a batch of several requests, on a GPU",
    )


class ImageOptions(StepOptions, frozen=True):
    """Options of the preprocessing of images."""

    decode_workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="processes of an instance that decode images; unset: half of the cores, from 2 to 16",
    )
    max_image_bytes: int = Field(25 << 20, ge=1, le=MAX_INT32, description="maximum size of an encoded image, in bytes")


class ServingSpec(BaseModel, frozen=True, extra="forbid"):
    """The device, and the options of each step by its name."""

    target: Target = "cpu"
    preprocess_text: StepOptions = StepOptions()
    preprocess_image: ImageOptions = ImageOptions()
    vision_encoder: VisionEncoderOptions = VisionEncoderOptions()
    embedder: GraphOptions = GraphOptions()
    preprocess_rank: StepOptions = StepOptions()
    preprocess_rank_image: ImageOptions = ImageOptions()
    reranker: GraphOptions = GraphOptions()

    def graph(self, task: Task) -> GraphOptions:
        """Return the options of the last step of a task."""
        return self.reranker if task == "rank" else self.embedder

    def texts(self, task: Task) -> StepOptions:
        """Return the options of the preprocessing of texts for a task."""
        return self.preprocess_rank if task == "rank" else self.preprocess_text

    def images(self, task: Task) -> ImageOptions:
        """Return the options of the preprocessing of images for a task."""
        return self.preprocess_rank_image if task == "rank" else self.preprocess_image

    @property
    def configured_steps(self) -> frozenset[str]:
        """Names of the steps that have options other than the defaults."""
        return frozenset(self.model_fields_set & _DEFAULTS.keys())


# Default options of each step.
_DEFAULTS: Mapping[str, StepOptions] = {
    name: step.default for name, step in ServingSpec.model_fields.items() if name != "target"
}


@dataclass(frozen=True)
class ServedModel:
    """One public id.

    Attributes:
        identity: What the ensembles publish about it.
        spec: Its numbers.
        serving: How Triton runs it.
        token_ids_round_trip: Whether the tokenizer gives the same token ids again for the text of its token ids.
        padded_tokens: Tokens of every text, for a model that attends to padding; 0 for others.
    """

    identity: Identity
    spec: ModelSpec
    serving: ServingSpec = field(default_factory=ServingSpec)
    token_ids_round_trip: bool = True
    padded_tokens: int = 0


def parse_serving_spec(settings: Iterable[str], target: Target) -> ServingSpec:
    """Return the options given as `STEP.OPTION=VALUE`, of which the last one for an option counts.

    Raises:
        ServingOptionError: A setting names no step or option, or its value is not allowed.
    """
    values: dict[str, dict[str, str]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        step, _, option = name.partition(".")
        if not (equals and option):
            raise ServingOptionError(f"{setting!r} is not STEP.OPTION=VALUE, like embedder.max_batch_size=32")
        if step not in _DEFAULTS:
            raise ServingOptionError(f"{setting!r}: there is no step {step!r} (steps: {', '.join(_DEFAULTS)})")
        options = type(_DEFAULTS[step]).model_fields
        if option not in options:
            raise ServingOptionError(f"{setting!r}: {step} has no option {option!r} (options: {', '.join(options)})")
        values.setdefault(step, {})[option] = value
    try:
        spec = ServingSpec.model_validate({"target": target, **values})
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        step, option = map(str, wrong["loc"])
        options = type(_DEFAULTS[step]).model_fields
        raise ServingOptionError(
            f"{step}.{option}={wrong['input']}: {wrong['msg']} ({option}: {options[option].description})"
        ) from error
    graphs = (("vision_encoder", spec.vision_encoder), ("embedder", spec.embedder), ("reranker", spec.reranker))
    for step, graph in graphs:
        if target != "cpu" and graph.max_queue_delay_us:  # what bounds batches by rows would refuse the model
            raise ServingOptionError(
                f"{step}.max_queue_delay_us must be 0 for --target {target}, whose batches have a limit"
            )
    return spec


def describe_serving_options() -> str:
    """Return one line for each option, with its meaning and its default."""
    options = [
        (f"{step}.{name}", option.description, option.default)
        for step, defaults in _DEFAULTS.items()
        for name, option in type(defaults).model_fields.items()
    ]
    width = max(len(name) for name, _, _ in options)
    return "\n".join(
        f"  {name:{width}}  {description}" + ("" if default is None else f" (default: {default})")
        for name, description, default in options
    )
