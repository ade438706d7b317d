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
        ("license: [mit]", ""),
        ("license:\n  text: mit", ""),
        ("{ broken", ""),
        ("- a list", ""),
        ("1: a number for a key", ""),
        ("license: mit\nmodel-index: nonsense", "MIT"),
        ("\n\n\nlicense: mit\n\n\n", "MIT"),
    ],
)
def test_licence_comes_from_the_front_matter(tmp_path, front_matter, expected):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Title\n")
    assert read_model_card(Checkpoint(tmp_path), None).license == expected


def test_licence_of_the_command_line_takes_precedence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_model_card(Checkpoint(tmp_path), "BSD-3-Clause").license == "BSD-3-Clause"


def test_licence_text_is_the_checkpoints_own(tmp_path):
    (tmp_path / "LICENSE").write_text("Do as you like.")
    assert read_model_card(Checkpoint(tmp_path), "Apache-2.0").license_text == "Do as you like."


def test_description_is_the_first_paragraph_of_prose(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\na: b\n---\n\n# Title\n\n![badge](x)\n\nIt [maps](http://x) text\nto rows.\n\nMore."
    )
    assert read_model_card(Checkpoint(tmp_path), None).description == "It maps text to rows."


def test_checkpoint_without_a_readme_has_an_empty_card(tmp_path):
    card = read_model_card(Checkpoint(tmp_path), None)
    assert (card.license, card.license_text, card.description) == ("", "", "")


def bomb(levels: int, width: int) -> str:
    """Return a few hundred bytes of YAML whose aliases expand to `width ** levels` items."""
    lines = ["a0: &a0 [x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join([*lines, f"license: [{', '.join([f'*a{levels - 1}'] * width)}]"])


def merge_bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * width)}]}}")
    return "\n".join([*lines, "license: mit"])


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "front_matter",
    [
        bomb(12, 12),
        merge_bomb(12, 12),
        "[" * 300_000,
        "- " * 150_000,
        "license: mit" + "\n" * 800_000 + "x",
        "license: mit\n" + "tags: [" + "a, " * 300_000 + "]",
    ],
    ids=["aliases", "merged aliases", "deep flow", "deep block", "blank lines", "too large"],
)
def test_front_matter_that_would_take_too_long_to_parse_is_ignored(tmp_path, front_matter):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n\nProse.")
    card = read_model_card(Checkpoint(tmp_path), None)
    assert (card.license, card.description) == ("", "Prose.")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["[" * 900_000, "\n" * 900_000, "---\na" + "\n" * 900_000, "---\n" * 200_000])
def test_text_that_is_hard_for_patterns_is_read_quickly(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert read_model_card(Checkpoint(tmp_path), None).license == ""


def test_card_with_hundreds_of_evaluation_results_keeps_its_licence(tmp_path):
    result = "  - task: {type: Retrieval}\n    dataset: {type: mteb/x, name: X}\n    metrics: [{type: map, value: 1}]\n"
    front_matter = f"model-index:\n- name: x\n  results:\n{result * 1000}license: mit"
    assert len(front_matter) > 100_000
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n")
    assert read_model_card(Checkpoint(tmp_path), None).license == "MIT"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "value",
    [
        ":".join(["1"] * 200_000),  # an integer to the base of 60
        "1" * 400_000,
        "2001-01-01T00:00:00.0 +9:99",
        "x" * 101,
        "!!python/object/apply:os.getcwd []",
        "!!int x",
    ],
    ids=lambda value: value[:20],
)
def test_licence_that_is_no_name_is_left_out(tmp_path, value):
    (tmp_path / "README.md").write_text(f"---\nlicense: {value}\n---\n\nProse.")
    card = read_model_card(Checkpoint(tmp_path), None)
    assert len(card.license) <= 100 and "/" not in card.license
    assert card.description == "Prose."
