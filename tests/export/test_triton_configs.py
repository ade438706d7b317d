"""The rendered configs follow docs/contract.md."""

from collections.abc import Mapping

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.serving import GraphOptions, ImageOptions, ServedModel, ServingSpec, StepOptions, VisionEncoderOptions
from export.spec import Identity, ImageSpec, ImageTowerSpec, ModelSpec
from export.triton import render_repository, to_text
from export.triton.profiles import list_profiles
from export.triton.steps import preprocessing_parameters, warmup_files

TEXT_SPEC = ModelSpec(
    architecture="bert", dimensions=384, vocab_size=30522, max_query_tokens=128, max_passage_tokens=256,
    pooling="mean", query_prefix="query: ",
)  # fmt: skip
IMAGE_SPEC = ModelSpec(
    architecture="llama_nemotron_vl", dimensions=2048, vocab_size=128259, max_query_tokens=512,
    max_passage_tokens=10240, pooling="mean", query_prefix="query: ", passage_prefix="passage: ",
    image_embeds_dim=2048,
    image=ImageSpec(
        token_id=128258, prefix="<img>", suffix="</img> ", tile_size=512, max_tiles=6, use_thumbnail=True,
        tokens_per_tile=256,
    ),
)  # fmt: skip
TOWER_SPEC = ModelSpec(
    architecture="clip", dimensions=512, vocab_size=49408, max_query_tokens=77, max_passage_tokens=77, pooling="last",
    image=ImageTowerSpec(
        image_size=224, patch_size=32, shortest_edge=224, resample="bicubic", scale=1 / 255, mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
)  # fmt: skip
IDENTITY = Identity("org/m", license="MIT", fingerprint="f00d", manifest='{"public_id": "org/m"}')

EMBEDDER = """
name: "m_embedder"
backend: "onnxruntime"
max_batch_size: 64
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true },
  { name: "sequence_lengths" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true },
  { name: "image_embeds" data_type: TYPE_FP32 dims: [ -1, 2048 ] allow_ragged_batch: true },
  { name: "image_rows" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true }
]
output [ { name: "embeddings" data_type: TYPE_FP32 dims: [ -1, 2048 ] } ]
batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "embeddings" source_input: "sequence_lengths" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {}
model_warmup [ {
  name: "one_short_text"
  batch_size: 1
  inputs { key: "input_ids" value { data_type: TYPE_INT64 dims: [ 8 ] zero_data: true } }
  inputs { key: "sequence_lengths" value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "one_sequence_of_8" } }
  inputs { key: "image_embeds" value { data_type: TYPE_FP32 dims: [ 1, 2048 ] zero_data: true } }
  inputs { key: "image_rows" value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "one_row" } }
} ]
"""

VISION_ENCODER = """
name: "m_vision_encoder"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "patches" data_type: TYPE_UINT8 dims: [ -1, 3072 ] allow_ragged_batch: true } ]
output [ { name: "image_embeds" data_type: TYPE_FP32 dims: [ -1, 2048 ] } ]
batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "image_embeds" source_input: "patches" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {}
optimization { priority: PRIORITY_MIN }
model_warmup [ {
  name: "one_tile"
  batch_size: 1
  inputs { key: "patches" value { data_type: TYPE_UINT8 dims: [ 256, 3072 ] zero_data: true } }
} ]
"""


def render(spec: ModelSpec = IMAGE_SPEC, serving: ServingSpec | None = None) -> dict[str, pb.ModelConfig]:
    return render_repository(ServedModel(IDENTITY, spec, serving or ServingSpec()))


def parameters(config: pb.ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def names_of(tensors) -> list[str]:
    return [tensor.name for tensor in tensors]


@pytest.mark.parametrize(("name", "expected"), [("m_embedder", EMBEDDER), ("m_vision_encoder", VISION_ENCODER)])
def test_onnx_steps_are_ragged_batched_and_warmed_up(name, expected):
    assert render()[name] == text_format.Parse(expected, pb.ModelConfig())


@pytest.mark.parametrize("spec", [TEXT_SPEC, IMAGE_SPEC, TOWER_SPEC])
def test_text_of_a_config_parses_to_the_same_config(spec):
    configs = render(spec)
    assert len(configs) == (6 if spec.image else 3)
    for config in configs.values():
        assert text_format.Parse(to_text(config), pb.ModelConfig()) == config


def test_text_model_has_nothing_about_images():
    configs = render(TEXT_SPEC)
    assert list(configs) == ["m_preprocess_text", "m_embedder", "m_text"]
    assert not any("image" in to_text(config) for config in configs.values())
    assert warmup_files(TEXT_SPEC) == {
        "preprocess_text": {"one_text": b"\x07\0\0\0warm-up"},
        "embedder": {"one_sequence_of_8": b"\x08\0\0\0"},
    }


def test_every_step_is_warmed_up_with_files_that_are_written():
    steps = {name.removeprefix("m_"): config for name, config in render().items() if config.backend}
    files = warmup_files(IMAGE_SPEC)
    assert set(steps) == {"preprocess_text", "preprocess_image", "vision_encoder", "embedder"}
    for name, config in steps.items():
        inputs = [entry for warmup in config.model_warmup for entry in warmup.inputs.values()]
        assert inputs, name
        assert {entry.input_data_file for entry in inputs if not entry.zero_data} == set(files.get(name, {}))


def test_preprocess_steps_batch_ragged_requests_on_the_cpu():
    for name in ("m_preprocess_text", "m_preprocess_image"):
        config = render(
            serving=ServingSpec(
                target="cuda", preprocess_text=StepOptions(instances=3), preprocess_image=ImageOptions(instances=3)
            )
        )[name]
        assert config.backend == "preprocess"
        assert config.max_batch_size == 64
        assert config.HasField("dynamic_batching")
        assert all(tensor.allow_ragged_batch for tensor in config.input)
        assert [(group.count, group.kind) for group in config.instance_group] == [(3, pb.ModelInstanceGroup.KIND_CPU)]


def test_preprocessing_parameters_are_those_of_the_contract():
    configs = render()
    text = {
        "modality": "text", "query_prefix": "query: ", "passage_prefix": "passage: ", "max_query_tokens": "512",
        "max_passage_tokens": "10240", "vocab_size": "128259", "image_token_id": "128258", "image_embeds_dim": "2048",
    }  # fmt: skip
    assert parameters(configs["m_preprocess_text"]) == text
    assert parameters(configs["m_preprocess_image"]) == text | {
        "modality": "image", "image_prefix": "<img>", "image_suffix": "</img> ", "tile_size": "512", "max_tiles": "6",
        "use_thumbnail": "true", "max_image_bytes": "26214400",
    }  # fmt: skip


def test_serving_options_are_not_part_of_the_manifests_preprocessing():
    assert not {"decode_workers", "max_image_bytes"} & preprocessing_parameters(IMAGE_SPEC).keys()


def test_optional_inputs_are_optional_in_ensembles_and_preprocessing_alike():
    configs = render()
    optional = {"input_type", "prompt", "truncate", "token_ids", "token_id_counts", "token_id_policy"}
    for name in ("m_text", "m_preprocess_text"):
        assert {tensor.name for tensor in configs[name].input if tensor.optional} == optional
        assert {tensor.name for tensor in configs[name].input} == optional | {"text"}
    for name in ("m_image", "m_preprocess_image"):
        assert {tensor.name: tensor.optional for tensor in configs[name].input} == {
            "image": False, "page": True, "text": True, "truncate": True,
        }  # fmt: skip


def test_steps_and_ensembles_report_tokens_before_truncation():
    configs = render()
    for name in ("m_text", "m_preprocess_text", "m_image", "m_preprocess_image"):
        [output] = [tensor for tensor in configs[name].output if tensor.name == "untruncated_token_counts"]
        assert (output.data_type, list(output.dims)) == (pb.DataType.TYPE_INT32, [-1])


@pytest.mark.parametrize("spec", [TEXT_SPEC, IMAGE_SPEC, TOWER_SPEC])
def test_a_tokenizer_that_cannot_round_trip_is_marked_on_the_text_step_and_ensemble(spec):
    configs = render_repository(ServedModel(IDENTITY, spec, token_ids_round_trip=False))
    marked = {name for name, config in configs.items() if "token_ids_round_trip" in config.parameters}
    assert marked == {"m_text", "m_preprocess_text"}
    assert all(parameters(configs[name])["token_ids_round_trip"] == "false" for name in marked)


def test_ensembles_describe_themselves():
    configs = render()
    both = {
        "public_id": "org/m", "dimensions": "2048", "max_tokens": "10240", "precision": "fp32", "license": "MIT",
        "fingerprint": "f00d",
    }  # fmt: skip
    assert parameters(configs["m_text"]) == both | {"modality": "text", "manifest": '{"public_id": "org/m"}'}
    assert parameters(configs["m_image"]) == both | {
        "modality": "image", "max_tiles": "7", "tokens_per_tile": "256", "max_image_bytes": "26214400",
    }  # fmt: skip


@pytest.mark.parametrize("spec", [TEXT_SPEC, IMAGE_SPEC, TOWER_SPEC])
def test_each_tensor_of_an_ensemble_comes_from_its_input_or_an_earlier_step(spec):
    check_wiring(render(spec), spec)


def check_wiring(configs: Mapping[str, pb.ModelConfig], spec: ModelSpec) -> None:
    ensembles = [config for config in configs.values() if config.platform == "ensemble"]
    assert len(ensembles) == len(spec.modalities)
    for ensemble in ensembles:
        assert ensemble.max_batch_size == 1
        made = set(names_of(ensemble.input))
        for step in ensemble.ensemble_scheduling.step:
            member = configs[step.model_name]
            assert set(step.input_map) == set(names_of(member.input))
            assert set(step.output_map) == set(names_of(member.output))
            assert set(step.input_map.values()) <= made
            made |= set(step.output_map.values())
        assert set(names_of(ensemble.output)) <= made


def test_serving_options_reach_their_step():
    serving = ServingSpec(
        target="cuda",
        preprocess_text=StepOptions(max_batch_size=16, instances=2, max_queue_delay_us=100),
        preprocess_image=ImageOptions(max_batch_size=4, instances=3, decode_workers=8, max_image_bytes=52428800),
        vision_encoder=VisionEncoderOptions(max_batch_size=2, instances=4, intra_op_threads=1),
        embedder=GraphOptions(max_batch_size=32, instances=5, intra_op_threads=8, max_queue_delay_us=500),
    )
    configs = render(serving=serving)
    steps = {name.removeprefix("m_"): config for name, config in configs.items() if config.backend}
    assert {
        name: (config.max_batch_size, config.instance_group[0].count, config.instance_group[0].kind)
        for name, config in steps.items()
    } == {
        "preprocess_text": (16, 2, pb.ModelInstanceGroup.KIND_CPU),
        "preprocess_image": (4, 3, pb.ModelInstanceGroup.KIND_CPU),
        "vision_encoder": (2, 4, pb.ModelInstanceGroup.KIND_GPU),
        "embedder": (32, 5, pb.ModelInstanceGroup.KIND_GPU),
    }
    assert {name: config.dynamic_batching.max_queue_delay_microseconds for name, config in steps.items()} == {
        "preprocess_text": 100, "preprocess_image": 0, "vision_encoder": 0, "embedder": 500,
    }  # fmt: skip
    assert parameters(steps["vision_encoder"])["intra_op_thread_count"] == "1"
    assert parameters(steps["embedder"])["intra_op_thread_count"] == "8"
    assert parameters(steps["preprocess_image"])["decode_workers"] == "8"
    assert parameters(steps["preprocess_image"])["max_image_bytes"] == "52428800"
    assert parameters(configs["m_image"])["max_image_bytes"] == "52428800"


def test_batches_on_a_gpu_are_bounded_by_rows():
    vision_encoder = VisionEncoderOptions(max_batch_rows=512)
    configs = render(serving=ServingSpec(target="cuda", vision_encoder=vision_encoder))
    memory = {"arena_extend_strategy": "1", "gpu_mem_limit": "34359738368"}
    assert parameters(configs["m_embedder"]) == {"MAX_BATCH_ROWS": "16384", **memory}
    assert parameters(configs["m_vision_encoder"]) == {"MAX_BATCH_ROWS": "512", **memory}


@pytest.mark.parametrize(("spec", "profiles"), [(TEXT_SPEC, ["0", "1"]), (IMAGE_SPEC, ["0", "1", "2"])])
def test_engines_have_a_context_for_each_profile(spec, profiles):
    serving = ServingSpec(target="tensorrt")
    config = render(spec, serving)["m_embedder"]
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert list(config.instance_group[0].profile) == profiles
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert parameters(config) == {
        "MAX_BATCH_ROWS": "16384", "execution_context_allocation_strategy": "ON_PROFILE_CHANGE",
    }  # fmt: skip
    assert [tensor.allow_ragged_batch for tensor in config.input] == [True] * len(config.input)


def test_profiles_fit_every_batch_that_triton_forms():
    serving = ServingSpec(target="tensorrt")
    listed = list_profiles("embedder", IMAGE_SPEC, serving)
    assert list(listed) == ["queries", "passages", "pages"]
    inputs = {tensor.name for tensor in render(IMAGE_SPEC, serving)["m_embedder"].input}
    for profile in listed.values():
        assert set(profile) == inputs
        assert all(sizes.min <= sizes.opt <= sizes.max for sizes in profile.values())
        # The backend refuses a max_batch_size above the largest size of an input.
        assert min(sizes.max for sizes in profile.values()) >= serving.embedder.max_batch_size
    assert listed["passages"]["input_ids"].max == serving.embedder.max_batch_rows
    assert listed["pages"]["image_embeds"].max >= serving.embedder.max_batch_rows * 2048
    [tiles] = list_profiles("vision_encoder", IMAGE_SPEC, serving).values()
    tile = 512 * 512 * 3
    assert (tiles["patches"].min, tiles["patches"].opt, tiles["patches"].max) == (tile, 7 * tile, 32 * tile)


def test_profiles_fit_a_passage_at_the_limit_of_the_model():
    serving = ServingSpec(target="tensorrt", embedder=GraphOptions(max_batch_rows=1024))
    listed = list_profiles("embedder", IMAGE_SPEC, serving)
    assert listed["passages"]["input_ids"].max == IMAGE_SPEC.max_tokens


def test_unset_threads_are_left_to_the_backend():
    assert "intra_op_thread_count" not in render()["m_embedder"].parameters
