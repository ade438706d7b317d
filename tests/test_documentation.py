"""Check docs/settings.md against the code, and every link, path and setting that a Markdown page names.

`UPDATE_DOCS=1 pytest tests/test_documentation.py` rewrites docs/settings.md.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from gateway.settings import Settings
from launcher.settings import LauncherSettings
from tests.service import PROJECT

SETTINGS_PAGE = PROJECT / "docs" / "settings.md"
SETTINGS_HEAD = """# Settings

Environment variables, read once at start; an invalid value stops the process with a message that names the variable.
A test keeps this page in sync with the code.
"""

# Folders that are not part of the repository, or that hold other people's pages.
UNTRACKED_FOLDERS = {"build", "checkpoints", "node_modules", "__pycache__"}

# Inserted into docs/benchmarks.md, where its links resolve.
TEMPLATES = {"bench/method.md"}

# Names files and settings of earlier versions.
CHANGELOG = "CHANGELOG.md"

# Inside the folder of a served model or of a checkpoint, not in the repository.
MODEL_FILES = {"1/engine.json", "1/profiles.json", "1/tokenizer.json", "modules.json", "preprocessor_config.json"}

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FENCED_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
FILE_SUFFIXES = ("Dockerfile", "json", "md", "npy", "py", "sh", "ts", "yml")
SETTING = re.compile(r"\bGATEWAY_[A-Z0-9_]*[A-Z0-9]\b")


def render_rows(settings: type[BaseSettings]) -> Iterable[str]:
    prefix = settings.model_config.get("env_prefix", "")
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        default = str(field.default).removeprefix(f"{PROJECT}/")
        shown = f"`{default}`" if default not in ("", "None", "()", "{}") else ""
        assert field.description, f"{variable} has no description"
        yield f"| `{variable}` | {shown} | {field.description} |"


def render_settings_page() -> str:
    sections = [
        SETTINGS_HEAD,
        "## `make serve`: ports, paths and models\n",
        "\n".join(render_rows(LauncherSettings)) + "\n",
        "## The gateway\n",
        "`make serve` sets `HOST`, `GATEWAY_PORT`, `TRITON_URL` and `TRITON_METRICS_URL`; the gateway reads the others "
        "itself.\n",
        "\n".join(render_rows(Settings)) + "\n",
    ]
    return "\n".join(sections)


def test_settings_page_lists_every_setting() -> None:
    if os.environ.get("UPDATE_DOCS"):
        SETTINGS_PAGE.write_text(render_settings_page())
    assert SETTINGS_PAGE.read_text() == render_settings_page()


@cache
def list_repository() -> frozenset[str]:
    """Return every file and folder of the repository, relative to its root."""
    entries = []
    for folder, subfolders, files in os.walk(PROJECT):
        subfolders[:] = [
            name
            for name in subfolders
            if name == ".ci" or not (name.startswith(".") or name in UNTRACKED_FOLDERS or name.endswith(".egg-info"))
        ]
        entries += [str((Path(folder) / name).relative_to(PROJECT)) for name in (*subfolders, *files)]
    return frozenset(entries)


@cache
def list_path_endings() -> frozenset[str]:
    """Return every repository path with any number of its leading folders left out."""
    return frozenset(
        "/".join(parts[start:])
        for parts in (entry.split("/") for entry in list_repository())
        for start in range(len(parts))
    )


PAGES = sorted(entry for entry in list_repository() if entry.endswith(".md") and entry not in TEMPLATES)
PAGES_OF_THIS_VERSION = [page for page in PAGES if page != CHANGELOG]


def read_page(page: str) -> str:
    return (PROJECT / page).read_text()


def read_prose(page: str) -> str:
    """Return a page without its fenced code, in which `#` begins a comment."""
    return FENCED_CODE.sub("", read_page(page))


def find_links(page: str) -> list[str]:
    """Return the targets of links to this repository; inline code holds no links."""
    return LINK.findall(INLINE_CODE.sub("", read_prose(page)))


@cache
def list_anchors(page: str) -> frozenset[str]:
    """Return the anchors that GitHub gives a page's headings."""
    seen: Counter[str] = Counter()
    anchors = []
    for heading in HEADING.findall(read_prose(page)):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(anchors)


def is_broken_link(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = os.path.normpath(Path(page).parent / path) if path else page
    if target not in list_repository():
        return True
    return bool(anchor) and (not target.endswith(".md") or anchor not in list_anchors(target))


def find_paths(page: str) -> Iterator[str]:
    """Yield what looks like a path of this repository in a page's code: `gateway/app.py`, `graphs/`, `tiles.py`."""
    folders = "|".join(re.escape(entry) for entry in list_repository() if re.fullmatch(r"[^/.]+|\.ci", entry))
    path = re.compile(
        rf"(?<![\w./:@-])(?:(?:{folders})/[\w./-]*|\w[\w./-]*\.(?:{'|'.join(FILE_SUFFIXES)}))(?![\w*/-]|\.\w)"
    )
    text = read_page(page)
    inline_code = INLINE_CODE.findall(FENCED_CODE.sub("", text))
    for code in (*FENCED_CODE.findall(text), *inline_code):
        yield from (found.rstrip("./") for found in path.findall(code))
    yield from (code.rstrip("/") for code in inline_code if re.fullmatch(r"\w+/", code))


def is_missing_path(page: str, path: str) -> bool:
    """Return whether a path is found neither from the root nor, abbreviated, anywhere below it."""
    beside_page = os.path.normpath(Path(page).parent / path)
    return path not in list_path_endings() and beside_page not in list_repository() and path not in MODEL_FILES


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_or_heading(page: str) -> None:
    assert [link for link in find_links(page) if is_broken_link(page, link)] == []


@pytest.mark.parametrize("page", PAGES_OF_THIS_VERSION)
def test_paths_named_in_code_exist(page: str) -> None:
    assert [path for path in find_paths(page) if is_missing_path(page, path)] == []


@pytest.mark.parametrize("page", PAGES_OF_THIS_VERSION)
def test_settings_named_on_a_page_exist(page: str) -> None:
    known = {str(field.validation_alias or f"GATEWAY_{name}").upper() for name, field in Settings.model_fields.items()}
    assert set(SETTING.findall(read_page(page))) - known == set()


def test_pages_have_links_anchors_and_paths_to_check() -> None:
    assert {"README.md", "docs/api.md", "docs/architecture.md"} <= set(PAGES)
    links = [link for page in PAGES for link in find_links(page)]
    assert len(links) > 20
    assert any("#" in link for link in links)
    assert len([path for page in PAGES for path in find_paths(page)]) > 20
    assert len({setting for page in PAGES for setting in SETTING.findall(read_page(page))}) > 20


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("docs/api.md", False),
        ("docs/", False),
        ("docs/api.md#errors", False),
        ("#no-such-heading", True),
        ("docs/api.md#no-such-heading", True),
        ("docs/no-such-page.md", True),
        ("../outside.md", True),
    ],
)
def test_a_broken_link_is_found(link: str, broken: bool) -> None:
    assert is_broken_link("README.md", link) is broken


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("gateway/app.py", False),
        ("app.py", False),
        ("gateway/no_such_module.py", True),
        ("no_such_module.py", True),
        ("way/app.py", True),
    ],
)
def test_a_missing_path_is_found(path: str, missing: bool) -> None:
    assert is_missing_path("docs/architecture.md", path) is missing
