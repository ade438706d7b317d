from pathlib import Path

import pytest

from bench.page_sections import StepLoop
from bench.results import Load
from bench.workloads import PNG_PAGES, encode_page
from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from preprocess.steps import load_step
from tests.preprocess.image_files import draw_scene

PARAMETERS = {
    "modality": "image",
    "max_query_tokens": "10240",
    "max_passage_tokens": "10240",
    "vocab_size": "2048",
    "image_token_id": "600",
    "image_prefix": "<img>",
    "image_suffix": "</img> ",
    "tile_size": "512",
    "max_tiles": "6",
    "use_thumbnail": "true",
    "decode_workers": "2",
}


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_step_and_decoders_are_charged_for_their_own_time(tmp_path: Path, seconds: float) -> None:
    write_checkpoint(tmp_path, Widths())
    pages = [encode_page(draw_scene(1275, 1650), "PNG")]
    contender = StepLoop(load_step(tmp_path, PARAMETERS), 2, {PNG_PAGES: pages}, seconds)
    sample = contender.measure(Load(PNG_PAGES, 1, 4))
    contender.close()
    assert contender.name == "2 decoders"
    assert sample.requests >= 1
    assert sample.cpu_us_per_item["decoders"] > sample.cpu_us_per_item["step"] > 0
