"""The licence and description of a checkpoint, from its README and LICENSE files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from export.checkpoint import Checkpoint

_LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
# The hub writes SPDX identifiers in lower case.
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0"}
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_MAX_DESCRIPTION_CHARS = 400
_OWN_LICENSE = Path(__file__).resolve().parent.parent / "LICENSE"  # Apache-2.0


@dataclass(frozen=True)
class ModelCard:
    """Licence and description; empty where the checkpoint has none."""

    license: str
    license_text: str
    description: str


def read_model_card(checkpoint: Checkpoint, license_override: str | None) -> ModelCard:
    """Read the front matter and the first paragraph of `README.md`, and the licence file.

    Args:
        checkpoint: The checkpoint.
        license_override: Licence to use instead of the one in the front matter.
    """
    readme = checkpoint.text("README.md") or ""
    matter = _FRONT_MATTER.match(readme)
    fields = _fields(matter.group(1)) if matter else {}
    name = license_override or _license_name(fields)
    return ModelCard(
        name, _license_text(checkpoint, name), _first_paragraph(readme[matter.end() :] if matter else readme)
    )


def _fields(front_matter: str) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(front_matter)
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _license_name(fields: dict[str, Any]) -> str:
    found = str(fields.get("license") or "")
    if found == "other":
        found = str(fields.get("license_name") or found)
    return _SPDX.get(found.lower(), found)


def _license_text(checkpoint: Checkpoint, name: str) -> str:
    for file in _LICENSE_FILES:
        if text := checkpoint.text(file):
            return text
    if name == "Apache-2.0" and _OWN_LICENSE.is_file():
        return _OWN_LICENSE.read_text("utf-8")
    return ""


def _first_paragraph(text: str) -> str:
    """Return the first paragraph of prose: no heading, list, table, quote, image or markup."""
    for paragraph in re.split(r"\n\s*\n", text):
        prose = " ".join(line for line in paragraph.splitlines() if line and not re.match(r"\s*[#<|!>*`-]", line))
        prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).strip()
        if prose:
            return prose[:_MAX_DESCRIPTION_CHARS]
    return ""
