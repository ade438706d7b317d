"""The rendered configs of rerankers follow docs/contract.md."""

from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from export.serving import GraphOptions, ImageOptions, ServedModel, ServingSpec, StepOptions
from export.spec import Identity, ModelSpec, RankSpec
from export.triton import render_repository
from export.triton.steps import warmup_files
from tests.export.test_triton_configs import IMAGE_SPEC, check_wiring, names_of, parameters

TEXT_SPEC = ModelSpec(
    architecture="bert", dimensions=1, vocab_size=30522, max_query_tokens=512, max_passage_tokens=512, pooling="cls",
    normalize=False, rank=RankSpec("identity", (101,), (102,), (102,), token_types=True),
)  # fmt: skip
IMAGE_RERANKER = replace(
    IMAGE_SPEC, query_prefix="question:", passage_prefix=" passage:", rank=RankSpec("sigmoid", (128000,))
)
IDENTITY = Identity("org/m", license="MIT", fingerprint="f00d", manifest="{}", golden="{}")


def render(spec: ModelSpec = IMAGE_RERANKER, **serving: object) -> dict[str, pb.ModelConfig]:
    return render_repository(ServedModel(IDENTITY, spec, ServingSpec.model_validate(serving)))


def test_models_and_tensors_of_a_text_reranker_are_those_of_the_contract() -> None:
    configs = render(TEXT_SPEC)
    assert list(configs) == ["m_preprocess_rank", "m_reranker", "m_rank"]
    counts = ["token_counts", "untruncated_token_counts", "errors"]
    packed = ["input_ids", "sequence_lengths", "token_types"]
    for name in ("m_rank", "m_preprocess_rank"):
        assert {tensor.name: tensor.optional for tensor in configs[name].input} == {
            "query": False, "text": False, "truncate": True,
        }  # fmt: skip
    assert names_of(configs["m_rank"].output) == ["scores", *counts]
    assert names_of(configs["m_preprocess_rank"].output) == [*packed, *counts]
    reranker = configs["m_reranker"]
    assert (names_of(reranker.input), names_of(reranker.output)) == (packed, ["scores"])
    assert (reranker.output[0].data_type, list(reranker.output[0].dims)) == (pb.DataType.TYPE_FP32, [-1])
    [scatter] = reranker.batch_output
    assert (list(scatter.target_name), list(scatter.source_input)) == (["scores"], ["sequence_lengths"])


def test_models_and_tensors_of_a_multimodal_reranker_are_those_of_the_contract() -> None:
    configs = render()
    assert list(configs) == [
        "m_preprocess_rank", "m_preprocess_rank_image", "m_vision_encoder", "m_reranker", "m_rank", "m_rank_image",
    ]  # fmt: skip
    for name in ("m_rank_image", "m_preprocess_rank_image"):
        assert {tensor.name: tensor.optional for tensor in configs[name].input} == {
            "query": False, "image": False, "page": True, "text": True, "truncate": True,
        }  # fmt: skip
    assert names_of(configs["m_rank_image"].output) == [
        "scores", "token_counts", "untruncated_token_counts", "image_token_counts", "tile_counts", "page_counts",
        "errors",
    ]  # fmt: skip


def test_rerankers_describe_themselves() -> None:
    both = {
        "public_id": "org/m", "task": "rank", "activation": "sigmoid", "max_tokens": "10240", "precision": "fp32",
        "license": "MIT", "fingerprint": "f00d",
    }  # fmt: skip
    configs = render()
    assert parameters(configs["m_rank"]) == both | {"modality": "text", "manifest": "{}", "golden": "{}"}
    assert parameters(configs["m_rank_image"]) == both | {
        "modality": "image", "max_tiles": "7", "tokens_per_tile": "256", "max_image_bytes": "26214400",
    }  # fmt: skip


def test_preprocessing_parameters_are_those_of_the_contract() -> None:
    assert parameters(render(TEXT_SPEC)["m_preprocess_rank"]) == {
        "modality": "text", "task": "rank", "query_prefix": "", "passage_prefix": "", "max_query_tokens": "512",
        "max_passage_tokens": "512", "vocab_size": "30522", "token_types": "true", "pair_head": "[101]",
        "pair_middle": "[102]", "pair_tail": "[102]",
    }  # fmt: skip
    image = parameters(render()["m_preprocess_rank_image"])
    assert (image["modality"], image["task"], image["pair_head"], image["pair_tail"]) == (
        "image",
        "rank",
        "[128000]",
        "[]",
    )


@pytest.mark.parametrize("spec", [TEXT_SPEC, IMAGE_RERANKER])
def test_each_tensor_of_an_ensemble_comes_from_its_input_or_an_earlier_step(spec: ModelSpec) -> None:
    check_wiring(render(spec), spec)


@pytest.mark.parametrize("spec", [TEXT_SPEC, IMAGE_RERANKER])
def test_every_step_is_warmed_up_with_files_that_are_written(spec: ModelSpec) -> None:
    steps = {name.removeprefix("m_"): config for name, config in render(spec).items() if config.backend}
    files = warmup_files(spec)
    for name, config in steps.items():
        [warmup] = config.model_warmup
        required = {tensor.name for tensor in config.input if not tensor.optional}
        assert set(warmup.inputs) == required, name
        entries = warmup.inputs.values()
        assert {entry.input_data_file for entry in entries if not entry.zero_data} == set(files.get(name, {}))


def test_serving_options_reach_their_step() -> None:
    configs = render(
        preprocess_rank=StepOptions(instances=2),
        preprocess_rank_image=ImageOptions(instances=3, max_image_bytes=1000),
        reranker=GraphOptions(instances=4),
    )
    counts = {name: configs[f"m_{name}"].instance_group[0].count for name in ("preprocess_rank", "reranker")}
    assert counts == {"preprocess_rank": 2, "reranker": 4}
    assert configs["m_preprocess_rank_image"].instance_group[0].count == 3
    assert parameters(configs["m_rank_image"])["max_image_bytes"] == "1000"
