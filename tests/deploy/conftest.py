import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service import PROJECT

VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


FORMS = {"gpu": "docker-compose.yml", "cpu": "docker-compose.cpu.yml"}
COMPOSE_FILES = [*FORMS.values(), "docker-compose.services.yml"]


@pytest.fixture(scope="session", params=FORMS)
def form(request) -> str:
    """A way to run the containers: with a GPU or without."""
    return str(request.param)


@pytest.fixture(scope="session")
def compose(form: str) -> dict[str, Any]:
    """The content of the form's file, with the services that it extends."""
    return read_form(form)


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> Mapping[str, dict[str, Any]]:
    """Return the services that start without a profile."""
    return {name: service for name, service in compose["services"].items() if "profiles" not in service}


@pytest.fixture(scope="session")
def triton_command() -> list[str]:
    """The entrypoint of Triton's image, without the script of its base image."""
    [entrypoint] = read_instructions(PROJECT / "deploy" / "triton.Dockerfile", "ENTRYPOINT")
    script, *command = json.loads(entrypoint)
    assert script == "/opt/nvidia/nvidia_entrypoint.sh"
    return command


@pytest.fixture(scope="session")
def with_defaults() -> Callable[[str], str]:
    """Replace the variables in a string by their defaults."""
    return lambda text: VARIABLE.sub(r"\2", text)


def read_form(form: str) -> dict[str, Any]:
    """Return a form's file with each service merged into the one that it extends, as Compose does."""
    compose = read(FORMS[form])
    for name, service in compose["services"].items():
        extended = service.pop("extends")
        assert extended["service"] == name
        compose["services"][name] = merge(read(extended["file"])["services"][name], service)
    return compose


def merge(base: dict[str, Any], extension: dict[str, Any]) -> dict[str, Any]:
    """Return a service merged with its extension: mappings by key, lists one after the other."""
    merged = dict(base)
    for key, value in extension.items():
        if isinstance(value, dict):
            merged[key] = base.get(key, {}) | value
        elif isinstance(value, list):
            merged[key] = base.get(key, []) + value
        else:
            merged[key] = value
    return merged


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT / name).read_text())
    return content


def read_instructions(dockerfile: Path, name: str) -> list[str]:
    """Return the arguments of each instruction with that name, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return re.findall(rf"^{name} (.+)$", text, re.MULTILINE)
