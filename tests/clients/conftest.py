from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients import environments
from tests.clients.api import Api
from tests.end_to_end.conftest import repository, service
from tests.service import Service

__all__ = ["repository", "service"]

Install = Callable[[str], Path]


@pytest.fixture(scope="session")
def install(pytestconfig: pytest.Config) -> Install:
    """Return a function that installs a group of packages, and shows on the terminal that it does."""
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        if terminal is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                terminal.ensure_newline()
                terminal.write_line(line)

    return lambda group: environments.install(group, report)


@pytest.fixture(scope="session")
def api(service: Service) -> Api:
    return Api(service.http_url)


@pytest.fixture(scope="session")
def tiktoken_files(install: Install) -> Path:
    """Return a cache of tiktoken's encodings: the wheel of LiteLLM contains cl100k_base and o200k_base."""
    [tokenizers] = install("litellm").glob("lib/*/site-packages/litellm/litellm_core_utils/tokenizers")
    return tokenizers
