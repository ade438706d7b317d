from dataclasses import replace
from pathlib import Path

from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.flagship import FLAGSHIP, TRACKED_REPOSITORY
from export.repository import write_configs
from export.spec import ImageSpec

TINY_FLAGSHIP = Path(__file__).parents[1] / "data" / "tiny-checkpoint"


def test_tracked_configs_are_what_an_export_writes(tmp_path):
    write_configs(tmp_path, FLAGSHIP)
    rendered = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.glob("*/config.pbtxt")}
    tracked = TRACKED_REPOSITORY.glob("*/config.pbtxt")
    assert {str(path.relative_to(TRACKED_REPOSITORY)): path.read_text() for path in tracked} == rendered
    assert len(rendered) == 6


def test_spec_is_that_of_the_tiny_checkpoint_except_for_widths():
    planned = plan_export(Checkpoint(TINY_FLAGSHIP), "fp32").spec
    spec = FLAGSHIP.spec
    assert isinstance(planned.image, ImageSpec)
    widened = replace(
        planned,
        dimensions=spec.dimensions,
        vocab_size=spec.vocab_size,
        image_embeds_dim=spec.image_embeds_dim,
        image=replace(planned.image, token_id=128258),
    )
    assert widened == spec
