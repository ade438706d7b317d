"""Plans of dual encoders: what is read of a checkpoint, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.architectures import Plan, plan_export
from export.architectures.clip import plan as plan_clip
from export.architectures.dual_encoder import read_tower_config
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.builder import save_model
from export.names import EMBEDDER, VISION_ENCODER
from export.spec import ImageTowerSpec, Precision, Target
from export.tokenizer import load_tokenizer, read_padded_length
from export.validation import require_agreement
from tests.export.tiny_bert import write_json
from tests.export.tiny_dual_encoders import WRITERS, write_clip, write_siglip


def save(plan: Plan, folder: Path) -> dict[str, Path]:
    files = {}
    for step, build in plan.graphs.items():
        (folder / step).mkdir(parents=True)
        files[step] = save_model(build(), folder / step)
    return files


def edit(path: Path, **changes: Any) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_graphs_agree_with_transformers(tmp_path: Path, kind: str, precision: Precision) -> None:
    plan = plan_export(Checkpoint(WRITERS[kind](tmp_path / "model")), precision)
    agreement = plan.compare(save(plan, tmp_path))
    require_agreement(agreement, precision)
    assert agreement.samples > 30


@pytest.mark.parametrize("kind", list(WRITERS))
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("target", ["cuda", "tensorrt", "tensorrt-dense"])
def test_graphs_for_gpus_agree_with_transformers(
    tmp_path: Path, kind: str, precision: Precision, target: Target
) -> None:
    plan = plan_export(Checkpoint(WRITERS[kind](tmp_path / "model")), precision, target)
    require_agreement(plan.compare(save(plan, tmp_path)), precision)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_clip_has_the_activation_of_its_config(tmp_path: Path, activation: str) -> None:
    tower = {"hidden_act": activation}
    plan = plan_export(Checkpoint(write_clip(tmp_path / "model", tower, tower)), "fp32")
    require_agreement(plan.compare(save(plan, tmp_path)), "fp32")


@pytest.mark.parametrize("kind", WRITERS)
def test_an_item_without_patches_affects_no_other(tmp_path: Path, kind: str) -> None:
    folder = WRITERS[kind](tmp_path / "model")
    plan = plan_export(Checkpoint(folder), "fp32")
    image = plan.spec.image
    assert isinstance(image, ImageTowerSpec)
    graph = onnxruntime.InferenceSession(save(plan, tmp_path)[VISION_ENCODER])
    rows, width = image.tokens_per_tile, image.bytes_per_row
    patches = np.random.default_rng(3).integers(0, 256, (2 * rows, width), np.uint8)

    def run(patches: np.ndarray, *image_rows: int) -> np.ndarray:
        inputs = {"patches": patches.ravel(), "image_rows": np.array(image_rows, np.int32)}
        embeddings: np.ndarray = graph.run(["embeddings"], inputs)[0]
        return embeddings

    found = run(patches, 0, rows, 0, 0, rows, 0)
    assert np.isnan(found[[0, 2, 3, 5]]).all()
    np.testing.assert_allclose(found[1], run(patches[:rows], rows)[0], atol=1e-6)
    np.testing.assert_allclose(found[4], run(patches[rows:], rows)[0], atol=1e-6)
    assert abs(float(found[1] @ found[4])) < 0.9999


def test_siglip_texts_are_lowered_and_padded(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "model")
    tokenizer = plan_export(Checkpoint(folder), "fp32").tokenizer
    assert read_padded_length(tokenizer) == 40
    served = load_tokenizer(tokenizer)
    ids = served.encode("A Cat").ids
    assert ids == served.encode("a cat").ids and len(ids) == 40 and ids[-1] == 0
    edit(folder / "tokenizer_config.json", do_lower_case=False)
    served = load_tokenizer(plan_export(Checkpoint(folder), "fp32").tokenizer)
    assert served.encode("A Cat").ids != served.encode("a cat").ids


def test_the_first_siglip_reads_texts_without_punctuation(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "model")
    edit(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    served = load_tokenizer(plan_export(Checkpoint(folder), "fp32").tokenizer)
    assert served.normalizer is not None
    punctuated = "\t Don't,  (please) [do_not]:\n \\A-b/c{}~`^|@#$%&*+=<>?! "
    assert served.normalizer.normalize_str(punctuated).strip() == "dont please donot abc"


def test_gemmas_flags_decide_on_special_tokens(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "model")
    tokens = {"bos_token": "[CLS]", "eos_token": {"content": "[SEP]"}}
    for flags, expected in (((True, True), [2, 3]), ((False, True), [3]), ((False, False), [])):
        edit(folder / "tokenizer_config.json", add_bos_token=flags[0], add_eos_token=flags[1], **tokens)
        served = load_tokenizer(plan_export(Checkpoint(folder), "fp32").tokenizer)
        assert [token_id for token_id in served.encode("").ids if token_id] == expected


def test_the_image_spec_is_that_of_the_preprocessor(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "model")
    assert asdict(plan_export(Checkpoint(folder), "fp32").spec)["image"] == {
        "image_size": 30, "patch_size": 10, "shortest_edge": 36, "resample": "bicubic", "scale": 1 / 255,
        "mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711),
    }  # fmt: skip
    published = {"crop_size": 30, "size": 30, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}
    channels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    write_json(folder / "preprocessor_config.json", published | channels | {"do_center_crop": True})
    image = plan_export(Checkpoint(folder), "fp32").spec.image
    assert isinstance(image, ImageTowerSpec)
    assert (image.shortest_edge, image.scale, image.mean, image.std) == (30, 1 / 255, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


def test_normalisation_reaches_the_graph(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "model")
    edit(
        folder / "preprocessor_config.json", image_mean=[0.2, 0.5, 0.8], image_std=[0.9, 0.3, 0.5], rescale_factor=0.005
    )
    plan = plan_export(Checkpoint(folder), "fp32")
    require_agreement(plan.compare(save(plan, tmp_path)), "fp32")


def test_what_a_config_leaves_out_is_transformers_default() -> None:
    from transformers import CLIPConfig, SiglipConfig

    from export.architectures import clip, siglip

    for config, defaults in (
        (SiglipConfig(), (siglip._DEFAULTS, siglip._VISION_DEFAULTS)),
        (CLIPConfig(), (clip._TEXT_DEFAULTS, clip._VISION_DEFAULTS)),
    ):
        for tower, values in zip(("text_config", "vision_config"), defaults, strict=True):
            complete = getattr(config, tower).to_dict()
            assert read_tower_config({}, tower, values) == {name: complete[name] for name in values}


def test_the_older_config_of_clip_takes_precedence() -> None:
    from transformers import CLIPConfig

    from export.architectures import clip

    config = {"text_config": {"hidden_size": 640, "num_hidden_layers": 3}, "text_config_dict": {"hidden_size": 768}}
    expected = CLIPConfig(**config).text_config
    found = read_tower_config(config, "text_config", clip._TEXT_DEFAULTS)
    assert (found["hidden_size"], found["num_hidden_layers"]) == (expected.hidden_size, expected.num_hidden_layers)
    assert expected.hidden_size == 768


REFUSED: list[tuple[str, Callable[[Path], None], str]] = [
    ("siglip", lambda folder: edit(folder / "config.json", model_type="siglip2"), "NaFlex kind"),
    ("siglip", lambda folder: (folder / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
    ("siglip", lambda folder: edit(folder / "tokenizer_config.json", pad_token=None), "names no pad_token"),
    ("siglip", lambda folder: edit(folder / "tokenizer_config.json", pad_token="<none>"), "no token '<none>'"),
    ("siglip", lambda folder: edit(folder / "config.json", architectures=["SiglipVisionModel"]), "SiglipVisionModel"),
    ("clip", lambda folder: edit(folder / "config.json", architectures=["CLIPTextModel"]), "CLIPTextModel"),
    ("clip", lambda folder: edit(folder / "config.json", vision_config={"num_channels": 1}), "RGB images"),
    ("clip", lambda folder: edit(folder / "config.json", text_config=[]), "not an object"),
    ("siglip", lambda folder: edit(folder / "config.json", vision_config={"image_size": 28}), "9 position embeddings"),
]
REFUSED_PREPROCESSING: list[tuple[dict[str, Any], str]] = [
    ({"image_processor_type": "ViTImageProcessor"}, "is of ViTImageProcessor"),
    ({"do_resize": False}, "has do_resize false"),
    ({"do_normalize": False}, "has do_normalize false"),
    ({"resample": 0}, "has resample 0; only 1"),
    ({"rescale_factor": 2}, "rescale_factor is 2"),
    ({"do_center_crop": "yes"}, "do_center_crop is 'yes'"),
    ({"crop_size": 31}, "does not make images of 30x30 pixels"),
    ({"size": {"shortest_edge": 29}}, "does not make images of 30x30 pixels"),
    ({"size": {"shortest_edge": 36}, "do_center_crop": False}, "does not make images of 30x30 pixels"),
    ({"size": {"height": 30, "width": 31}}, "does not make images of 30x30 pixels"),
    ({"image_mean": [0.5, 0.5]}, "not three numbers"),
    ({"image_std": [0.5, 0.5, 0]}, "not three numbers"),
]


@pytest.mark.parametrize(("kind", "change", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, kind: str, change: Callable[[Path], None], message: str
) -> None:
    folder = WRITERS[kind](tmp_path / "model")
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        plan_export(Checkpoint(folder), "fp32")


@pytest.mark.parametrize(("changes", "message"), REFUSED_PREPROCESSING)
def test_preprocessing_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_clip(tmp_path / "model")
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        plan_clip(Checkpoint(folder), "fp32", "cpu")


def test_both_towers_are_steps(tmp_path: Path) -> None:
    plan = plan_export(Checkpoint(write_siglip(tmp_path / "model")), "fp32")
    assert set(plan.graphs) == {VISION_ENCODER, EMBEDDER}
    assert plan.spec.modalities == ("text", "image") and plan.spec.image_embeds_dim is None
