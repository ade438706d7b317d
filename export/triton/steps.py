"""The steps of the ensembles: preprocessing on the CPU, and the graphs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from export import names
from export.serving import GraphOptions, ImageOptions, ServedModel, ServingSpec, StepOptions
from export.spec import ImageSpec, ImageTowerSpec, ModelSpec, RankSpec, Target, is_tensorrt
from export.triton import tensors
from export.triton.profiles import ENGINE_FILE, Profile, list_profiles
from export.triton.tensors import Tensor

WARMUP_TOKENS = 8
SEQUENCE_LENGTHS_FILE = "one_sequence_of_8"
IMAGE_ROWS_FILE = "one_row"
TILE_ROWS_FILE = "rows_of_one_tile"
TEXT_FILE = "one_text"
IMAGE_FILE = "one_image"

# How ONNX Runtime takes GPU memory: just as much as it needs (kSameAsRequested), where it would double what it has, and
# at most so many bytes. The native backend reads these parameters, and not what an execution accelerator says, once a
# model has any parameters.
_CUDA_MEMORY = {"arena_extend_strategy": "1", "gpu_mem_limit": str(32 << 30)}


def preprocess_text(name: str, model: ServedModel) -> pb.ModelConfig:
    """Return the step from `text`, and the query of a reranker, to the inputs of the last graph."""
    spec = model.spec
    outputs = (*head_inputs(spec), *tensors.TEXT_RESULTS)
    config = _preprocess(name, text_inputs(spec), outputs, model.serving.texts(spec.task))
    set_parameters(config, {"modality": names.TEXT, **_text_parameters(spec), **token_id_parameters(model)})
    warmup = config.model_warmup.add(name="one_text", batch_size=1)
    for tensor in (tensors.QUERY, tensors.TEXT) if spec.rank else (tensors.TEXT,):
        _fill_from_file(warmup, tensor, TEXT_FILE)
    return config


def preprocess_image(name: str, spec: ModelSpec, options: ImageOptions) -> pb.ModelConfig:
    """Return the step from encoded images, alone or with text, to the inputs of the graphs."""
    outputs = (*preprocessed_image(_require_image(spec)), *tensors.IMAGE_RESULTS)
    config = _preprocess(name, image_inputs(spec), outputs, options)
    set_parameters(config, {"modality": names.IMAGE, **preprocessing_parameters(spec)})
    set_parameters(config, {"max_image_bytes": str(options.max_image_bytes)})
    if options.decode_workers is not None:
        set_parameters(config, {"decode_workers": str(options.decode_workers)})
    warmup = config.model_warmup.add(name="one_image", batch_size=1)
    _fill_from_file(warmup, tensors.IMAGE, IMAGE_FILE)
    if spec.rank:
        _fill_from_file(warmup, tensors.QUERY, TEXT_FILE)
    return config


def vision_encoder(name: str, spec: ModelSpec, serving: ServingSpec) -> pb.ModelConfig:
    """Return the step from `patches` to `image_embeds`, or to `embeddings` if it is an image tower.

    The tiles of all requests of a batch are encoded together.
    """
    image = _require_image(spec)
    inputs, output = vision_encoder_inputs(image), vision_encoder_output(spec)
    config = _graph(name, inputs, output, inputs[-1], serving.vision_encoder, serving.target)
    _set_profiles(config, list_profiles(names.VISION_ENCODER, spec, serving), serving.target)
    # A tile takes much longer than a text: where both compete for the processor, texts go first.
    config.optimization.priority = pb.ModelOptimizationPolicy.PRIORITY_MIN
    warmup = config.model_warmup.add(name="one_tile", batch_size=1)
    _fill_with_zeros(warmup, inputs[0], rows=image.tokens_per_tile)
    if tensors.IMAGE_ROWS in inputs:
        _fill_from_file(warmup, tensors.IMAGE_ROWS, TILE_ROWS_FILE)
    return config


def head(name: str, spec: ModelSpec, serving: ServingSpec) -> pb.ModelConfig:
    """Return the step from token ids, and image rows if the model takes images, to `embeddings` or `scores`."""
    inputs, options = head_inputs(spec), serving.graph(spec.task)
    config = _graph(name, inputs, head_output(spec), tensors.SEQUENCE_LENGTHS, options, serving.target)
    _set_profiles(config, list_profiles(names.HEADS[spec.task], spec, serving), serving.target)
    warmup = config.model_warmup.add(name="one_short_text", batch_size=1)
    for tensor in inputs:
        if tensor is tensors.SEQUENCE_LENGTHS:
            _fill_from_file(warmup, tensor, SEQUENCE_LENGTHS_FILE)
        elif tensor is tensors.IMAGE_ROWS:
            _fill_from_file(warmup, tensor, IMAGE_ROWS_FILE)
        else:
            is_of_tokens = tensor in (tensors.INPUT_IDS, tensors.TOKEN_TYPES)
            _fill_with_zeros(warmup, tensor, rows=WARMUP_TOKENS if is_of_tokens else 1)
    return config


def warmup_files(spec: ModelSpec) -> dict[str, dict[str, bytes]]:
    """Return the files that Triton reads from the `warmup/` folder of each step: little-endian INT32, or BYTES."""
    head, ensembles = names.HEADS[spec.task], names.ENSEMBLES[spec.task]
    text = {TEXT_FILE: _as_bytes_tensor(b"warm-up")}
    files = {
        names.PREPROCESSING[ensembles["text"]]: text,
        head: {SEQUENCE_LENGTHS_FILE: WARMUP_TOKENS.to_bytes(4, "little")},
    }
    if spec.image is not None:
        image = {IMAGE_FILE: _as_bytes_tensor(_small_image())}
        files[names.PREPROCESSING[ensembles["image"]]] = image | (text if spec.rank else {})
    if isinstance(spec.image, ImageTowerSpec):
        files[names.VISION_ENCODER] = {TILE_ROWS_FILE: spec.image.tokens_per_tile.to_bytes(4, "little")}
    elif spec.image is not None:
        files[head][IMAGE_ROWS_FILE] = (1).to_bytes(4, "little")
    return files


def _as_bytes_tensor(item: bytes) -> bytes:
    """Return one element in Triton's BYTES format, its length first."""
    return len(item).to_bytes(4, "little") + item


def _small_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue()


def text_inputs(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return the inputs of the ensemble of texts."""
    return tensors.RANK_INPUTS if spec.rank else tensors.TEXT_INPUTS


def image_inputs(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return the inputs of the ensemble of images; an image tower takes no text beside them."""
    if isinstance(spec.image, ImageTowerSpec):
        return tuple(tensor for tensor in tensors.IMAGE_INPUTS if tensor is not tensors.TEXT_BESIDE_IMAGE)
    return tensors.RANK_IMAGE_INPUTS if spec.rank else tensors.IMAGE_INPUTS


def head_inputs(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return the inputs of the last graph, which are outputs of the preprocessing of texts."""
    inputs: tuple[Tensor, ...] = (tensors.INPUT_IDS, tensors.SEQUENCE_LENGTHS)
    if spec.rank and spec.rank.token_types:
        inputs += (tensors.TOKEN_TYPES,)
    if spec.image_embeds_dim is not None:
        inputs += (tensors.image_embeds(spec.image_embeds_dim), tensors.IMAGE_ROWS)
    return inputs


def head_output(spec: ModelSpec) -> Tensor:
    """Return the output of the last graph, with an entry for each item."""
    return tensors.SCORES if spec.rank else tensors.embeddings(spec.dimensions)


def preprocessed_image(image: ImageSpec | ImageTowerSpec) -> tuple[Tensor, ...]:
    """Return what the preprocessing of images makes for the graphs."""
    patches = tensors.patches(image.bytes_per_row)
    if isinstance(image, ImageTowerSpec):
        return (patches, tensors.IMAGE_ROWS)
    return (patches, tensors.INPUT_IDS, tensors.SEQUENCE_LENGTHS, tensors.IMAGE_ROWS)


def vision_encoder_inputs(image: ImageSpec | ImageTowerSpec) -> tuple[Tensor, ...]:
    """Return the inputs of the vision encoder; its output has one row for each row of the last of them."""
    patches = tensors.patches(image.bytes_per_row)
    return (patches, tensors.IMAGE_ROWS) if isinstance(image, ImageTowerSpec) else (patches,)


def vision_encoder_output(spec: ModelSpec) -> Tensor:
    """Return the output of the vision encoder, which is that of the model if there is no language model."""
    if spec.image_embeds_dim is None:
        return tensors.embeddings(spec.dimensions)
    return tensors.image_embeds(spec.image_embeds_dim)


def preprocessing_parameters(spec: ModelSpec) -> dict[str, str]:
    """Return the parameters that decide how texts and images are preprocessed, which the manifest records."""
    return {**_text_parameters(spec), **(_image_parameters(spec.image) if spec.image else {})}


def token_id_parameters(model: ServedModel) -> dict[str, str]:
    """Return the parameter of a text step and its ensemble that says that token ids cannot be checked, if so."""
    return {} if model.token_ids_round_trip else {"token_ids_round_trip": "false"}


def set_parameters(config: pb.ModelConfig, values: Mapping[str, str]) -> None:
    """Set string parameters of a config."""
    for key, value in values.items():
        config.parameters[key].string_value = value


def _preprocess(
    name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], options: StepOptions
) -> pb.ModelConfig:
    config = pb.ModelConfig(
        name=name,
        backend="preprocess",
        max_batch_size=options.max_batch_size,
        input=[tensor.as_input(ragged=True) for tensor in inputs],
        output=[tensor.as_output() for tensor in outputs],
        dynamic_batching=_batching(options),
    )
    config.instance_group.add(count=options.instances, kind=pb.ModelInstanceGroup.KIND_CPU)
    return config


def _graph(
    name: str,
    inputs: tuple[Tensor, ...],
    output: Tensor,
    rows_like: Tensor,
    options: GraphOptions,
    target: Target,
) -> pb.ModelConfig:
    """Return a step that runs a graph, whose `output` has one row for each row of its input `rows_like`."""
    config = pb.ModelConfig(
        name=name,
        backend="tensorrt" if is_tensorrt(target) else "onnxruntime",
        max_batch_size=options.max_batch_size,
        input=[tensor.as_input(ragged=True) for tensor in inputs],
        output=[output.as_output()],
        dynamic_batching=_batching(options),
    )
    config.batch_output.add(
        target_name=[output.name],
        kind=pb.BatchOutput.BATCH_SCATTER_WITH_INPUT_SHAPE,
        source_input=[rows_like.name],
    )
    group = pb.ModelInstanceGroup
    # Without a count, Triton would load the weights twice on a CPU.
    kind = group.KIND_CPU if target == "cpu" else group.KIND_GPU
    config.instance_group.add(count=options.instances, kind=kind)
    if options.intra_op_threads is not None:
        set_parameters(config, {"intra_op_thread_count": str(options.intra_op_threads)})
    if target != "cpu":
        set_parameters(config, {"MAX_BATCH_ROWS": str(options.max_batch_rows)})
    if target == "cuda":
        set_parameters(config, _CUDA_MEMORY)
    return config


def _set_profiles(config: pb.ModelConfig, profiles: Mapping[str, Profile], target: Target) -> None:
    """Name the engine of a step that runs one, with an execution context for each of its profiles."""
    if not is_tensorrt(target):
        return
    config.default_model_filename = ENGINE_FILE
    config.instance_group[0].profile.extend(map(str, range(len(profiles))))
    # Contexts share the memory of activations: an instance uses one of them at a time.
    set_parameters(config, {"execution_context_allocation_strategy": "ON_PROFILE_CHANGE"})


def _batching(options: StepOptions) -> pb.ModelDynamicBatching:
    """Return dynamic batching without a queue policy: the gateway keeps deadlines and limits.

    With a queue size, a timeout or an override, Triton's batcher does not prepare the next batch while an instance
    works, and may then sleep up to 500 ms while requests wait (docs/performance.md).
    """
    return pb.ModelDynamicBatching(max_queue_delay_microseconds=options.max_queue_delay_us)


def _fill_with_zeros(warmup: pb.ModelWarmup, tensor: Tensor, rows: int) -> None:
    entry = warmup.inputs[tensor.name]
    entry.data_type, entry.zero_data = tensor.data_type, True
    entry.dims.extend((rows, *tensor.dims[1:]))


def _fill_from_file(warmup: pb.ModelWarmup, tensor: Tensor, file: str) -> None:
    entry = warmup.inputs[tensor.name]
    entry.data_type, entry.input_data_file = tensor.data_type, file
    entry.dims.append(1)


def _text_parameters(spec: ModelSpec) -> dict[str, str]:
    values = {
        "query_prefix": spec.query_prefix,
        "passage_prefix": spec.passage_prefix,
        "max_query_tokens": str(spec.max_query_tokens),
        "max_passage_tokens": str(spec.max_passage_tokens),
        "vocab_size": str(spec.vocab_size),
    }
    if isinstance(spec.image, ImageSpec):
        values |= {"image_token_id": str(spec.image.token_id), "image_embeds_dim": str(spec.image_embeds_dim)}
    return values | (_rank_parameters(spec.rank) if spec.rank else {})


def _rank_parameters(rank: RankSpec) -> dict[str, str]:
    return {
        "task": "rank",
        "pair_head": json.dumps(rank.head),
        "pair_middle": json.dumps(rank.middle),
        "pair_tail": json.dumps(rank.tail),
        "token_types": "true" if rank.token_types else "false",
    }


def _require_image(spec: ModelSpec) -> ImageSpec | ImageTowerSpec:
    if spec.image is None:
        raise ValueError("a model without images has no steps for them")
    return spec.image


def _image_parameters(image: ImageSpec | ImageTowerSpec) -> dict[str, str]:
    if isinstance(image, ImageTowerSpec):
        values = {
            "image_size": str(image.image_size),
            "patch_size": str(image.patch_size),
            "resample": image.resample,
        }
        return values if image.shortest_edge is None else values | {"shortest_edge": str(image.shortest_edge)}
    return {
        "image_prefix": image.prefix,
        "image_suffix": image.suffix,
        "tile_size": str(image.tile_size),
        "max_tiles": str(image.max_tiles),
        "use_thumbnail": "true" if image.use_thumbnail else "false",
    }
