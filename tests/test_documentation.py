"""Tables in docs/ say what the code says. `UPDATE_DOCS=1 pytest tests/test_documentation.py` rewrites them."""

import os
import re
from collections.abc import Iterable

import pytest
from pydantic_settings import BaseSettings

from gateway.settings import Settings
from launcher.settings import LauncherSettings
from tests.service import PROJECT

PAGE = PROJECT / "docs" / "settings.md"
HEAD = """# Settings

Environment variables, read once at start; an invalid value ends the process with a line that names it. A test keeps this
page in sync with the code.
"""


def render_rows(settings: type[BaseSettings]) -> Iterable[str]:
    prefix = settings.model_config.get("env_prefix", "")
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        default = str(field.default).removeprefix(f"{PROJECT}/")
        shown = f"`{default}`" if default not in ("", "None") else ""
        assert field.description, f"{variable} has no description"
        yield f"| `{variable}` | {shown} | {field.description} |"


def render_page() -> str:
    sections = [
        HEAD,
        "## `make serve`: ports, paths, what is served\n",
        "\n".join(render_rows(LauncherSettings)) + "\n",
        "## The gateway\n",
        "`make serve` sets the first addresses and ports; the rest is read by the gateway itself.\n",
        "\n".join(render_rows(Settings)) + "\n",
    ]
    return "\n".join(sections)


def test_the_settings_page_lists_every_setting() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(render_page())
    assert PAGE.read_text() == render_page()


@pytest.mark.parametrize(
    "page", ["README.md", "docs/api.md", "docs/architecture.md", "docs/contract.md", "docs/flagship.md"]
)
def test_links_and_paths_lead_somewhere(page: str) -> None:

    text = (PROJECT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    for link in links:
        assert ((PROJECT / page).parent / link).exists(), link
