"""The list of what can be exported is complete and true, and docs/models.md has it.

`UPDATE_DOCS=1 pytest tests/export/test_catalogue.py` rewrites the part of docs/models.md that is made of it.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from export.architectures import ARCHITECTURES, RERANKERS, plan_export
from export.catalogue import CATALOGUE, PUBLISHED, UNKNOWN, Architecture, describe_catalogue, describe_repository
from export.checkpoint import Checkpoint
from export.errors import ExportError
from export.graphs.builder import save_model
from export.names import HEADS
from export.spec import Precision, Target
from export.tiny_checkpoint.tensors import Widths
from export.tiny_checkpoint.write import write_checkpoint
from tests.export import tiny_dual_encoders, tiny_rerankers, tiny_text_models
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


def write_vl_reranker(folder: Path) -> Path:
    write_checkpoint(folder, Widths(hidden_size=64, layers=1, vision_layers=1), reranker=True)
    return folder


RERANKER_WRITERS: dict[str, Callable[[Path], Path]] = {
    **tiny_rerankers.RERANKERS,
    "llama_bidirec": tiny_rerankers.write_llama,
    "llama_nemotron_vl_rerank": write_vl_reranker,
}


def render_table() -> Iterator[str]:
    columns = (
        "checkpoint", "task", "input", "dimensions", "longest text", "pooling", "licence", "precisions", "targets",
        "memory", "speed", "tried with",
    )  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for each in PUBLISHED:
        architecture = each.architecture
        targets = "all" if set(architecture.targets) == set(get_args(Target)) else ", ".join(architecture.targets)
        speed = f"[measured]({each.speed})" if each.speed else ""
        cells: list[Any] = [
            f"`{each.hub_id}`", each.task, architecture.items, each.dimensions or "",
            f"{each.max_tokens} tokens" if each.max_tokens else UNKNOWN, each.pooling, each.license,
            ", ".join(architecture.precisions), targets, each.memory, speed, each.tried,
        ]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def test_the_page_of_models_lists_what_the_catalogue_does() -> None:
    table = "\n".join(render_table())
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(WRITTEN.sub(lambda _: table, PAGE.read_text()))
    assert WRITTEN.findall(PAGE.read_text()) == [table]


def test_every_architecture_is_listed_once() -> None:
    listed = [(each.task, model_type) for each in CATALOGUE for model_type in each.model_types]
    embedders = ARCHITECTURES.keys() - {"llama_nemotron_vl_rerank"}
    rerankers = {model_type for model_type, module in ARCHITECTURES.items() if module in RERANKERS}
    rerankers -= {"gemma3_text", "llama_nemotron_vl"}  # of the same modules, but embedders only
    assert sorted(listed) == sorted([("embed", each) for each in embedders] + [("rank", each) for each in rerankers])
    assert {(each.task, each.model_type) for each in PUBLISHED} <= set(listed)


@pytest.mark.parametrize("architecture", CATALOGUE, ids=lambda each: each.name)
def test_targets_and_precisions_are_those_that_an_export_takes(architecture: Architecture, tmp_path: Path) -> None:
    writers = RERANKER_WRITERS if architecture.task == "rank" else WRITERS
    model_type = next(model_type for model_type in architecture.model_types if model_type in writers)
    checkpoint = Checkpoint(writers[model_type](tmp_path / "model"))

    def is_built(precision: Precision, target: Target) -> bool:
        try:
            plan = plan_export(checkpoint, precision, target, architecture.task)
            for step, build in plan.graphs.items():
                (tmp_path / step).mkdir(exist_ok=True)
                save_model(build(), tmp_path / step)
        except (ExportError, ValueError):
            return False
        return HEADS[architecture.task] in plan.graphs

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
        facts = (each.task, each.architecture.items, each.dimensions, each.max_tokens or UNKNOWN, each.pooling)
        assert re.search(" +".join(re.escape(str(fact)) for fact in facts if fact is not None) + " ", line)


def test_a_repository_is_listed_by_its_manifests(export_command: Any, tiny_bert: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert export_command(tiny_bert, "--name", "tests/b", "--repository", repository).returncode == 0
    (repository / "other_text").mkdir()
    (repository / "other_text" / "config.pbtxt").write_text('name: "other_text"')
    heads, line = describe_repository(repository).splitlines()
    assert heads.split() == "model task architecture input dimensions tokens precision target MB".split()
    assert line.split() == ["tests/b", "embed", "bert", "text", "32", "48", "fp32", "cpu", "0"]
    listed = export_command("--list", repository)
    assert (listed.returncode, listed.stdout) == (0, f"{heads}\n{line}\n")


def test_a_reranker_of_a_repository_has_no_dimensions(export_command: Any, tmp_path: Path) -> None:
    reranker, repository = tiny_rerankers.write_bert(tmp_path / "reranker"), tmp_path / "repository"
    assert export_command(reranker, "--name", "tests/r", "--repository", repository).returncode == 0
    _, line = describe_repository(repository).splitlines()
    assert line.split() == ["tests/r", "rank", "bert", "text", str(tiny_rerankers.MAX_TOKENS), "fp32", "cpu", "0"]


def test_the_command_lists_or_asks_for_a_model(export_command: Any) -> None:
    listed = export_command("--list")
    assert (listed.returncode, listed.stdout) == (0, f"{describe_catalogue()}\n")
    missing = export_command()
    assert missing.returncode == 2 and "MODEL is missing; --list names some" in missing.stderr
