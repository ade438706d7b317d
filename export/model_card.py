"""The licence and description of a checkpoint, from its README and LICENSE files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from export.checkpoint import Checkpoint

# Front matter with the results of all MTEB tasks is some 200 KiB long.
MAX_FRONT_MATTER_CHARS = 512 << 10
MAX_FRONT_MATTER_DEPTH = 32
MAX_DESCRIPTION_CHARS = 400
MAX_LICENSE_NAME_CHARS = 100

_LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
# The hub writes SPDX identifiers in lower case.
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0"}
_APACHE_LICENSE = Path(__file__).resolve().parent.parent / "LICENSE"  # this project's own

# It leaves scalars as texts: turning "1:1:1:…", a number to the base of 60, into an integer takes hours.
_YAML_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_YAML_OPENING = (
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
)
_YAML_CLOSING = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


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

    Raises:
        CheckpointError: A file must not be read.
    """
    fields, text = _split_card(_collapse_blank_lines(checkpoint.text("README.md") or ""))
    name = license_override or _license_name(fields)
    return ModelCard(name, _license_text(checkpoint, name), _first_paragraph(text))


def _collapse_blank_lines(text: str) -> str:
    """Keep one blank line of several: on long runs of them, the time of the patterns below grows with the square."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for previous, line in pairwise(["", *lines]) if line or previous)


def _split_card(card: str) -> tuple[Mapping[str, Any], str]:
    """Return the fields of the front matter, none if it is malformed, and the text after it."""
    block = REGEX_YAML_BLOCK.match(card)
    if block is None:
        return {}, card
    text = card[block.end() :]
    if len(block.group()) > MAX_FRONT_MATTER_CHARS:
        return {}, text
    try:
        fields = yaml.load(block.group(2), _YAML_LOADER) if _is_bounded(block.group(2)) else {}  # noqa: S506 - texts only
    except (yaml.YAMLError, ValueError, TypeError):  # TypeError: a mapping for a key
        fields = {}
    return fields if isinstance(fields, dict) else {}, text


def _is_bounded(front_matter: str) -> bool:
    """Return whether YAML is free of aliases, a few of which expand to any size, and not deeply nested."""
    depth = 0
    for token in yaml.scan(front_matter, _YAML_LOADER):
        depth += isinstance(token, _YAML_OPENING) - isinstance(token, _YAML_CLOSING)
        if isinstance(token, yaml.AliasToken) or depth > MAX_FRONT_MATTER_DEPTH:
            return False
    return True


def _license_name(fields: Mapping[str, Any]) -> str:
    found = fields.get("license")
    if found == "other":
        found = fields.get("license_name") or found
    if not isinstance(found, str) or len(found) > MAX_LICENSE_NAME_CHARS:
        return ""
    return _SPDX.get(found.lower(), found)


def _license_text(checkpoint: Checkpoint, name: str) -> str:
    for file in _LICENSE_FILES:
        if text := checkpoint.text(file):
            return text
    if name == "Apache-2.0" and _APACHE_LICENSE.is_file():
        return _APACHE_LICENSE.read_text("utf-8")
    return ""


def _first_paragraph(text: str) -> str:
    """Return the first paragraph of prose: no heading, list, table, quote, image or markup."""
    for paragraph in text.split("\n\n"):
        prose = " ".join(line for line in paragraph.splitlines() if not re.match(r"\s*[#<|!>*`-]", line))
        prose = prose[: 10 * MAX_DESCRIPTION_CHARS]  # the pattern's time grows with the square
        prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).strip()
        if prose:
            return prose[:MAX_DESCRIPTION_CHARS]
    return ""
