import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service import PROJECT

VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """The content of docker-compose.yml."""
    return read(PROJECT / "docker-compose.yml")


@pytest.fixture(scope="session")
def cpu_override() -> dict[str, Any]:
    """The overrides for a machine without a GPU."""
    return read(PROJECT / "docker-compose.cpu.yml")


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> Mapping[str, dict[str, Any]]:
    """Return the services that start without a profile."""
    services: dict[str, dict[str, Any]] = compose["services"]
    return {name: service for name, service in services.items() if "profiles" not in service}


@pytest.fixture(scope="session")
def with_defaults() -> Callable[[str], str]:
    """Replace the variables in a string by their defaults."""
    return lambda text: VARIABLE.sub(r"\2", text)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content
