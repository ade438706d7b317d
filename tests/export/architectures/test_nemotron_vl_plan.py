import json
import shutil
from pathlib import Path

import pytest

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.spec import ImageSpec
from tests.export.golden_inputs import CHECKPOINT

ROPE = {
    "factor": 32,
    "high_freq_factor": 4,
    "low_freq_factor": 1,
    "original_max_position_embeddings": 8192,
    "rope_theta": 500000,
    "rope_type": "llama3",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_spec_comes_from_the_checkpoint():
    spec = plan_export(Checkpoint(CHECKPOINT), "fp32").spec
    assert (spec.dimensions, spec.image_embeds_dim, spec.vocab_size) == (96, 96, 1544)
    assert (spec.max_query_tokens, spec.max_passage_tokens) == (10240, 10240)
    assert (spec.query_prefix, spec.passage_prefix, spec.pooling) == ("query: ", "passage: ", "mean")
    assert spec.image == ImageSpec(
        token_id=1543,
        prefix="<img>",
        suffix="</img> ",
        tile_size=512,
        max_tiles=6,
        use_thumbnail=True,
        tokens_per_tile=256,
    )


def test_processor_config_takes_precedence(checkpoint):
    edit(checkpoint / "config.json", max_input_tiles=6)
    edit(checkpoint / "processor_config.json", max_input_tiles=4, p_max_length=8192)
    spec = plan_export(Checkpoint(checkpoint), "fp32").spec
    assert isinstance(spec.image, ImageSpec)
    assert (spec.image.max_tiles, spec.max_passage_tokens) == (4, 8192)


def test_images_have_one_tile_when_tiling_is_off(checkpoint):
    edit(checkpoint / "processor_config.json", dynamic_image_size=False)
    spec = plan_export(Checkpoint(checkpoint), "fp32").spec
    assert spec.image is not None
    assert spec.image.max_tiles_with_thumbnail == 1


def test_written_graphs_agree_with_the_reference(tmp_path):
    plan = plan_export(Checkpoint(CHECKPOINT), "fp32")
    files = {}
    for step, build in plan.graphs.items():
        (tmp_path / step).mkdir()
        files[step] = save_model(build(), tmp_path / step)
    agreement = plan.compare(files)
    assert agreement.max_abs_error < 5e-6
    assert agreement.samples > 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "last"}, "pooling 'last'"),
        ({"downsample_ratio": 0.25}, "only 3072"),
        ({"force_image_size": 448}, "448"),
        ({"img_context_token_id": 99}, "image token"),
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"model_type": ["bert"]}, "is not supported"),
        ({"model_type": None}, "has no model_type"),
        ({"architectures": ["LlamaNemotronVLForSequenceClassification"]}, "has no tensor score.weight"),
        ({"architectures": ["LlamaNemotronVLForTokenClassification"]}, "is a token classifier"),
        ({"downsample_ratio": 0}, "downsample_ratio is 0, which leaves no image tokens"),
        ({"downsample_ratio": 0.01}, "downsample_ratio is 0.01, which leaves no image tokens"),
        ({"downsample_ratio": "0.5"}, "downsample_ratio is '0.5', which leaves no image tokens"),
        ({"downsample_ratio": float("nan")}, "downsample_ratio is nan, which leaves no image tokens"),
        ({"llm_config": []}, r"llm_config is \[\], not an object"),
        ({"vision_config": None}, "vision_config is None, not an object"),
        ({"img_context_token_id": True}, "img_context_token_id is True, not an image token's id"),
        ({"img_context_token_id": "x"}, "img_context_token_id is 'x', not an image token's id"),
        ({"pooling": ["avg"]}, r"pooling is \['avg'\], not a text"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unsupported_checkpoint_is_refused(checkpoint, changes, message):
    edit(checkpoint / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(checkpoint), "fp32")


@pytest.mark.parametrize(
    ("tower", "changes", "message"),
    [
        ("llm_config", {"num_hidden_layers": 0}, "num_hidden_layers is 0, not a positive integer"),
        ("llm_config", {"num_key_value_heads": 4}, "num_attention_heads is 6, not a multiple of num_key_value_heads"),
        ("llm_config", {"head_dim": -16}, "head_dim is -16, not a positive integer"),
        (
            "llm_config",
            {"head_dim": None, "hidden_size": 95},
            "hidden_size is 95, not a multiple of",
        ),
        ("vision_config", {"num_hidden_layers": -1}, "num_hidden_layers is -1, not a positive integer"),
        ("vision_config", {"num_attention_heads": 5}, "hidden_size is 64, not a multiple of num_attention_heads"),
        ("vision_config", {"patch_size": 0}, "patch_size is 0, not a positive integer"),
        ("vision_config", {"patch_size": 15}, "image_size is 512, not a multiple of patch_size"),
        ("vision_config", {"image_size": 10**8}, "image_size is 100000000, not a positive integer up to 8192"),
        ("vision_config", {"layer_norm_eps": 1e30}, "layer_norm_eps is 1e[+]30, not a number between 0 and 1"),
        ("llm_config", {"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0, not a number between 0 and 1"),
        ("llm_config", {"head_dim": 15}, "head_dim is 15, not an even number"),
        ("llm_config", {"rope_parameters": [1]}, r"rope_parameters is \[1\], not an object"),
        ("llm_config", {"rope_parameters": {"rope_theta": 0}}, "rope_theta is 0, not a number between 0 and 1e[+]12"),
        ("llm_config", {"rope_parameters": ROPE | {"factor": 0}}, "factor is 0, not a number between 0 and"),
        ("llm_config", {"rope_parameters": ROPE | {"high_freq_factor": 1}}, "high_freq_factor is 1, not a number betw"),
    ],
)
def test_impossible_sizes_are_refused_by_name(checkpoint, tower, changes, message):
    config = json.loads((checkpoint / "config.json").read_text())
    edit(checkpoint / "config.json", **{tower: config[tower] | changes})
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(checkpoint), "fp32")


@pytest.mark.parametrize(
    "changes", [{"p_max_length": 0}, {"max_input_tiles": -1}, {"p_max_length": 10**12}, {"max_input_tiles": 10**9}]
)
def test_impossible_limits_are_refused_by_name(checkpoint, changes):
    edit(checkpoint / "processor_config.json", **changes)
    with pytest.raises(CheckpointError, match=f"{next(iter(changes))} is .*, not a positive integer"):
        plan_export(Checkpoint(checkpoint), "fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_thumbnail": "yes"}, "use_thumbnail is 'yes', not true or false"),
        ({"dynamic_image_size": 1}, "dynamic_image_size is 1, not true or false"),
        ({"query_prefix": 5}, "query_prefix is 5, not a text"),
        ({"passage_prefix": "a" * 5000}, "not a text of at most 4096 characters"),
        ({"p_max_length": 256}, "a passage has .* tokens before its text, of at most 256: nothing would fit"),
    ],
)
def test_impossible_preprocessing_is_refused_by_name(checkpoint, changes, message):
    edit(checkpoint / "processor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(checkpoint), "fp32")
