"""docs/clients.md names the clients and versions that the tests run, and every piece of its code is run."""

import pytest

from tests.clients.applications import DIFY, OPEN_WEBUI
from tests.clients.environments import read_node_pins, read_pins
from tests.clients.page import PAGE, Client, find_anchor, find_client, read_blocks, read_clients
from tests.clients.runs import NODE_PACKAGES

CLIENTS = [pytest.param(client, id=client.name) for client in read_clients()]

# Words that a client's code has if queries are told apart in this way.
QUERY_WORDS = {"suffix": "-query", "`input_type`": "input_type="}


def test_every_row_of_the_table_is_read() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| [")]
    assert len(read_clients()) == len(lines) > 15


@pytest.mark.parametrize("client", CLIENTS)
def test_a_row_has_the_version_that_is_tested(client: Client) -> None:
    language = client.find_block().language
    if language in ("ini", "yaml"):
        assert (client.package, client.version) in (OPEN_WEBUI, DIFY)
    elif language == "ts":
        assert read_node_pins(NODE_PACKAGES)[client.package] == client.version
    else:
        pins = [pins[client.package] for pins in read_pins().values() if client.package in pins]
        assert set(pins) == {client.version}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_code_marks_queries_as_its_row_says(client: Client) -> None:
    word = QUERY_WORDS.get(client.queries, "")
    assert word in client.find_block().source
    assert client.queries in QUERY_WORDS or "-query" not in client.find_block().source


def test_every_block_belongs_to_a_row() -> None:
    assert sorted(block.source for block in read_blocks()) == sorted(
        client.find_block().source for client in read_clients()
    )


def test_every_section_is_linked_from_the_table() -> None:
    assert {find_anchor(block.section) for block in read_blocks()} == {client.anchor for client in read_clients()}


def test_every_group_of_requirements_is_of_a_row() -> None:
    packages = {client.package for client in read_clients()}
    assert [group for group, pins in read_pins().items() if not packages & set(pins)] == []


def test_code_with_an_ellipsis_matches_within_a_line() -> None:
    block = find_client("LiteLLM, openai").find_block()
    assert block.contains('"model": "openai/…"')
    assert not block.contains("from litellm…settings")
