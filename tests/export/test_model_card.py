import pytest

from export.checkpoint import Checkpoint
from export.model_card import read_model_card


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("license: apache-2.0", "Apache-2.0"),
        ("license: other\nlicense_name: nvidia-open-model-license", "nvidia-open-model-license"),
        ("license: llama3.2", "llama3.2"),
        ("tags: [a]", ""),
        ("{ broken", ""),
    ],
)
def test_licence_comes_from_the_front_matter(tmp_path, front_matter, expected):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Title\n")
    assert read_model_card(Checkpoint(tmp_path), None).license == expected


def test_licence_of_the_command_line_wins(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_model_card(Checkpoint(tmp_path), "BSD-3-Clause").license == "BSD-3-Clause"


def test_licence_text_is_the_checkpoints_own(tmp_path):
    (tmp_path / "LICENSE").write_text("Do as you like.")
    assert read_model_card(Checkpoint(tmp_path), "Apache-2.0").license_text == "Do as you like."


def test_description_is_the_first_prose(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\na: b\n---\n\n# Title\n\n![badge](x)\n\nIt [maps](http://x) text\nto rows.\n\nMore."
    )
    assert read_model_card(Checkpoint(tmp_path), None).description == "It maps text to rows."


def test_checkpoint_without_a_readme_says_nothing(tmp_path):
    card = read_model_card(Checkpoint(tmp_path), None)
    assert (card.license, card.license_text, card.description) == ("", "", "")
