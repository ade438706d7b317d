"""Malformed checkpoints: the error names the stage in one line, and nothing is left behind."""

import io
import json
from pathlib import Path

import pytest

from export.errors import CheckpointError, ValidationError
from export.pipeline import ExportRequest, export_model
from export.progress import Progress
from tests.export.tiny_bert import write_json


@pytest.fixture
def export(own_tiny_bert, tmp_path):
    """Export the changed checkpoint, and check that nothing is left beside the repository."""
    parent = tmp_path / "parent"
    parent.mkdir()

    def run() -> None:
        try:
            export_model(ExportRequest(str(own_tiny_bert), parent / "repository"), Progress(io.StringIO()))
        finally:
            assert list(parent.iterdir()) == []

    return run


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | changes)


def test_missing_number_is_named(own_tiny_bert, export):
    write_json(own_tiny_bert / "config.json", {"model_type": "bert"})
    with pytest.raises(CheckpointError, match=r"cannot read the files of .*: no 'max_position_embeddings'"):
        export()


@pytest.mark.parametrize(
    ("file", "content"),
    [("modules.json", {"not": "a list"}), ("sentence_bert_config.json", ["not an object"])],
)
def test_file_of_another_shape_is_refused(own_tiny_bert, export, file, content):
    write_json(own_tiny_bert / file, content)
    with pytest.raises(CheckpointError, match=r"cannot read the files of|modules\.json is not a list of modules"):
        export()


def test_config_that_no_graph_can_be_built_from_is_refused(own_tiny_bert, export):
    change_config(own_tiny_bert, hidden_act="unheard-of")
    with pytest.raises(CheckpointError, match="cannot build the embedder in fp32"):
        export()


def test_weights_that_do_not_fit_the_config_are_refused(own_tiny_bert, export):
    change_config(own_tiny_bert, intermediate_size=40)
    with pytest.raises(ValidationError, match="cannot validate against the reference"):
        export()


def test_tokenizer_that_cannot_be_loaded_is_refused(own_tiny_bert, export):
    write_json(own_tiny_bert / "tokenizer.json", {})
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be loaded"):
        export()


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.txt", "README.md"])
def test_link_to_another_file_of_this_machine_is_not_published(own_tiny_bert, export, name):
    (own_tiny_bert / name).unlink(missing_ok=True)
    (own_tiny_bert / name).symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="is a link out of the checkpoint, to /etc/passwd"):
        export()
