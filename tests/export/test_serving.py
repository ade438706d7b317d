import pytest

from export.__main__ import main
from export.errors import ServingOptionError
from export.serving import (
    GraphOptions,
    ImageOptions,
    ServingSpec,
    StepOptions,
    VisionEncoderOptions,
    describe_serving_options,
    parse_serving_spec,
)


def test_options_are_set_by_step_and_the_last_one_wins():
    settings = [
        "embedder.max_batch_size=16", "embedder.max_batch_size=32", "embedder.intra_op_threads=8",
        "vision_encoder.max_batch_size=4", "preprocess_image.decode_workers=8",
        "preprocess_image.max_image_bytes=52428800", "preprocess_text.max_queue_delay_us=500",
    ]  # fmt: skip
    assert parse_serving_spec(settings, "cuda") == ServingSpec(
        target="cuda",
        embedder=GraphOptions(max_batch_size=32, intra_op_threads=8),
        preprocess_text=StepOptions(max_queue_delay_us=500),
        vision_encoder=VisionEncoderOptions(max_batch_size=4),
        preprocess_image=ImageOptions(decode_workers=8, max_image_bytes=52428800),
    )


def test_options_have_defaults():
    assert parse_serving_spec([], "cpu") == ServingSpec()
    assert parse_serving_spec(["embedder.instances=2"], "cpu").vision_encoder.max_batch_size == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("embedder", "like embedder.max_batch_size=32"),
        ("embedder.instances", "like embedder.max_batch_size=32"),
        ("embedder=3", "like embedder.max_batch_size=32"),
        ("=3", "like embedder.max_batch_size=32"),
        (
            "encoder.instances=1",
            "no step 'encoder' (steps: preprocess_text, preprocess_image, vision_encoder, embedder, preprocess_rank,"
            " preprocess_rank_image, reranker)",
        ),
        ("target.instances=1", "no step 'target' (steps: preprocess_text"),
        (
            "embedder.decode_workers=1",
            "no option 'decode_workers' (options: max_batch_size, max_queue_delay_us, instances, intra_op_threads, "
            "max_batch_rows)",
        ),
        ("embedder.max_batch_size=0", "embedder.max_batch_size=0: Input should be greater than or equal to 1"),
        ("embedder.max_batch_size=99999999999", "less than or equal to 2147483647"),
        ("embedder.max_queue_delay_us=-1", "greater than or equal to 0"),
        ("embedder.instances=many", "embedder.instances=many: Input should be a valid integer"),
        ("embedder.instances=", "Input should be a valid integer"),
        ("embedder.instances=1.5", "Input should be a valid integer"),
        ("preprocess_image.max_image_bytes=0", "greater than or equal to 1"),
    ],
)
def test_invalid_setting_is_refused_in_one_line_that_lists_the_alternatives(setting, message, capsys):
    with pytest.raises(ServingOptionError) as caught:
        parse_serving_spec([setting], "cpu")
    assert message in str(caught.value)
    assert main(["org/model", "--set", setting]) == 1
    assert capsys.readouterr().err.splitlines() == [f"error: {caught.value}"]


def test_help_lists_each_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert describe_serving_options() in text
    for line in (
        "preprocess_text.instances                 number of instances (default: 1)",
        "preprocess_image.max_image_bytes          maximum size of an encoded image, in bytes (default: 26214400)",
        "vision_encoder.max_batch_size             maximum number of requests in a batch (default: 8)",
        "embedder.intra_op_threads                 threads of an instance; unset: all cores",
    ):
        assert f"  {line}\n" in f"{text}\n"


@pytest.mark.parametrize("step", ["embedder", "vision_encoder"])
def test_batches_with_a_limit_of_rows_cannot_wait(step):
    assert parse_serving_spec([f"{step}.max_queue_delay_us=5"], "cpu")
    with pytest.raises(ServingOptionError, match=f"{step}.max_queue_delay_us must be 0 for --target cuda"):
        parse_serving_spec([f"{step}.max_queue_delay_us=5"], "cuda")
