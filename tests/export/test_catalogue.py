"""The list of what can be exported is complete and true, and docs/models.md has it.

`UPDATE_DOCS=1 pytest tests/export/test_catalogue.py` rewrites the part of docs/models.md that is made of it.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from export.architectures import ARCHITECTURES, plan_export
from export.catalogue import CATALOGUE, PUBLISHED, Architecture, describe_catalogue, describe_repository
from export.checkpoint import Checkpoint
from export.errors import ExportError
from export.graphs.builder import save_model
from export.names import EMBEDDER
from export.spec import Precision, Target
from tests.export import tiny_dual_encoders, tiny_text_models
from tests.export.tiny_bert import write_tiny_bert
from tests.export.tiny_text_models import write_padded
from tests.service import PROJECT

PAGE = PROJECT / "docs" / "models.md"
WRITTEN = re.compile(r"(?<=<!-- written from export/catalogue\.py -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)

WRITERS: dict[str, Callable[[Path], Path]] = {
    **tiny_text_models.WRITERS,
    **tiny_dual_encoders.WRITERS,
    "bert": write_tiny_bert,
    "llama_nemotron_vl": lambda folder: PROJECT / "tests" / "data" / "tiny-checkpoint",
    "distilbert": lambda folder: write_padded(folder, "distilbert"),
}


def render_table() -> Iterator[str]:
    heads = (
        "checkpoint, input, dimensions, longest text, pooling, licence, precisions, targets, memory, speed, tried with"
    )
    columns = heads.split(", ")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for each in PUBLISHED:
        architecture = each.architecture
        targets = "all" if set(architecture.targets) == set(get_args(Target)) else ", ".join(architecture.targets)
        speed = f"[measured]({each.speed})" if each.speed else ""
        cells: list[Any] = [
            f"`{each.hub_id}`", architecture.items, each.dimensions, f"{each.max_tokens} tokens", each.pooling,
            each.license, ", ".join(architecture.precisions), targets, each.memory, speed, each.tried,
        ]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def test_the_page_of_models_lists_what_the_catalogue_does() -> None:
    table = "\n".join(render_table())
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(WRITTEN.sub(lambda _: table, PAGE.read_text()))
    assert WRITTEN.findall(PAGE.read_text()) == [table]


def test_every_architecture_is_listed_once() -> None:
    listed = [model_type for each in CATALOGUE for model_type in each.model_types]
    assert sorted(listed) == sorted(ARCHITECTURES)
    assert {each.model_type for each in PUBLISHED} <= set(listed)


@pytest.mark.parametrize("architecture", CATALOGUE, ids=lambda each: each.name)
def test_targets_and_precisions_are_those_that_an_export_takes(architecture: Architecture, tmp_path: Path) -> None:
    model_type = next(model_type for model_type in architecture.model_types if model_type in WRITERS)
    checkpoint = Checkpoint(WRITERS[model_type](tmp_path / "model"))

    def is_built(precision: Precision, target: Target) -> bool:
        try:
            plan = plan_export(checkpoint, precision, target)
            for step, build in plan.graphs.items():
                (tmp_path / step).mkdir(exist_ok=True)
                save_model(build(), tmp_path / step)
        except (ExportError, ValueError):
            return False
        return EMBEDDER in plan.graphs

    precisions: tuple[Precision, ...] = get_args(Precision)
    assert [each for each in precisions if is_built(each, "cpu")] == list(architecture.precisions)
    if architecture.name != "other encoders, by optimum":  # whose graphs are the same for every target
        targets: tuple[Target, ...] = get_args(Target)
        assert [each for each in targets if is_built("fp32", each)] == list(architecture.targets)


def test_the_list_has_a_line_for_each_checkpoint() -> None:
    lines = describe_catalogue().splitlines()
    assert len(lines) == len(CATALOGUE) + len(PUBLISHED) + 3
    for each in PUBLISHED:
        [line] = [line for line in lines if line.startswith(f"{each.hub_id} ")]
        assert re.search(rf" {each.dimensions} +{each.max_tokens} +{each.pooling} ", line)


def test_a_repository_is_listed_by_its_manifests(export_command: Any, tiny_bert: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export_command(tiny_bert, "--name", "tests/b", "--repository", repository).returncode == 0
    (repository / "other_text").mkdir()
    (repository / "other_text" / "config.pbtxt").write_text('name: "other_text"')
    heads, line = describe_repository(repository).splitlines()
    assert heads.split() == ["model", "architecture", "input", "dimensions", "tokens", "precision", "target", "MB"]
    assert line.split() == ["tests/b", "bert", "text", "32", "48", "fp32", "cpu", "0"]
    listed = export_command("--list", repository)
    assert (listed.returncode, listed.stdout) == (0, f"{heads}\n{line}\n")


def test_the_command_lists_or_asks_for_a_model(export_command: Any) -> None:
    listed = export_command("--list")
    assert (listed.returncode, listed.stdout) == (0, f"{describe_catalogue()}\n")
    missing = export_command()
    assert missing.returncode == 2 and "MODEL is missing; --list names some" in missing.stderr
