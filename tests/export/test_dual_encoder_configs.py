"""The rendered configs of dual encoders follow docs/contract.md."""

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.serving import ServedModel, ServingSpec
from export.triton import render_repository
from export.triton.profiles import list_profiles
from export.triton.steps import preprocessing_parameters, warmup_files
from tests.export.test_triton_configs import IDENTITY, TOWER_SPEC, names_of, parameters, render

IMAGE_TOWER = """
name: "m_vision_encoder"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "patches" data_type: TYPE_UINT8 dims: [ -1, 3072 ] allow_ragged_batch: true },
  { name: "image_rows" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true }
]
output [ { name: "embeddings" data_type: TYPE_FP32 dims: [ -1, 512 ] } ]
batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "embeddings" source_input: "image_rows" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {}
optimization { priority: PRIORITY_MIN }
model_warmup [ {
  name: "one_tile"
  batch_size: 1
  inputs { key: "patches" value { data_type: TYPE_UINT8 dims: [ 49, 3072 ] zero_data: true } }
  inputs { key: "image_rows" value { data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "rows_of_one_tile" } }
} ]
"""


def test_an_image_tower_is_a_step_of_its_own():
    configs = render(TOWER_SPEC)
    assert configs["m_vision_encoder"] == text_format.Parse(IMAGE_TOWER, pb.ModelConfig())
    assert names_of(configs["m_embedder"].input) == ["input_ids", "sequence_lengths"]
    assert [step.model_name for step in configs["m_image"].ensemble_scheduling.step] == [
        "m_preprocess_image", "m_vision_encoder",
    ]  # fmt: skip
    assert names_of(configs["m_image"].input) == ["image", "page", "truncate"]
    files = warmup_files(TOWER_SPEC)
    assert files["vision_encoder"] == {"rows_of_one_tile": (49).to_bytes(4, "little")}
    assert set(files["embedder"]) == {"one_sequence_of_8"}


def test_an_image_tower_tells_how_images_are_resized():
    found = parameters(render(TOWER_SPEC)["m_preprocess_image"])
    resizing = {"image_size": "224", "patch_size": "32", "resample": "bicubic", "shortest_edge": "224"}
    assert resizing.items() <= found.items()
    assert preprocessing_parameters(TOWER_SPEC).items() <= found.items()
    assert parameters(render(TOWER_SPEC)["m_image"])["tokens_per_tile"] == "49"


def test_the_text_ensemble_tells_how_long_padded_texts_are():
    configs = render_repository(ServedModel(IDENTITY, TOWER_SPEC, padded_tokens=64))
    assert parameters(configs["m_text"])["padded_tokens"] == "64"
    assert "padded_tokens" not in render(TOWER_SPEC)["m_text"].parameters


def test_profiles_of_an_image_tower_fit_every_batch():
    serving = ServingSpec(target="tensorrt")
    [tiles] = list_profiles("vision_encoder", TOWER_SPEC, serving).values()
    assert set(tiles) == {tensor.name for tensor in render(TOWER_SPEC, serving)["m_vision_encoder"].input}
    assert all(sizes.min <= sizes.opt <= sizes.max for sizes in tiles.values())
    most_images = serving.vision_encoder.max_batch_rows // 49
    assert tiles["patches"].max == most_images * 49 * 3072
    assert tiles["image_rows"].max >= most_images
