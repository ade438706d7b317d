"""One style of docstrings, where no rule of ruff checks it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import PROJECT

PACKAGES = ["backends", "bench", "deploy", "export", "gateway", "launcher"]
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):\n((?:    .*\n?|\n)+)", re.MULTILINE)
NAMED_ENTRY = re.compile(r"^    [*\w`.]+(?: \([^)]*\))?: (\S.*(?:\n     .*)*)", re.MULTILINE)


def find_docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def find_entries(docstring: str) -> Iterator[str]:
    """Yield the descriptions in a docstring's sections; `Returns` and `Yields` have one without a name."""
    for section in SECTION.finditer(docstring):
        if section[1] in ("Returns", "Yields"):
            yield section[2].strip()
        else:
            yield from NAMED_ENTRY.findall(section[2])


def test_entries_are_found_in_all_sections() -> None:
    docstring = "Sum.\n\nArgs:\n    a: First,\n        on two lines.\n    *b: Others.\n\nReturns:\n    The sum.\n"
    assert list(find_entries(docstring)) == ["First,\n        on two lines.", "Others.", "The sum."]


@pytest.mark.parametrize("package", PACKAGES)
def test_entries_begin_with_a_capital_letter_and_end_with_a_full_stop(package: str) -> None:
    paths = sorted((PROJECT / package).rglob("*.py"))
    docstrings = [(path.relative_to(PROJECT), text) for path in paths for text in find_docstrings(path)]
    entries = [(path, entry) for path, text in docstrings for entry in find_entries(text)]
    assert entries
    wrong = [f"{path}: {entry}" for path, entry in entries if entry[0].islower() or not entry.rstrip().endswith(".")]
    assert not wrong, "\n".join(wrong)
