"""Every client of the table in docs/clients.md, with the code of its section."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.clients.api import Api, assert_same_vectors
from tests.clients.conftest import Install
from tests.clients.environments import find_group
from tests.clients.page import Block, read_clients
from tests.clients.pending import pending
from tests.clients.runs import Result, run_python, run_typescript, write_source
from tests.end_to_end.samples import MINILM, TINY

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

DOCUMENTS = ["Dogs are loyal companions", "Cats sleep all day"]
QUERY = "Which animal is loyal?"
LONG_TEXT = "Dogs are loyal companions. " * 100

CLIENTS = [client for client in read_clients() if client.find_block().language in ("python", "ts")]


@dataclass(frozen=True)
class Run:
    """What a block of the page did with an English model, with one that distinguishes queries, and with a long text."""

    block: Block
    english: Result
    with_prefixes: Result
    long_text: Result


@pytest.fixture(
    scope="module", params=[pytest.param(client, marks=pending(client.name), id=client.name) for client in CLIENTS]
)
def run(request: pytest.FixtureRequest, api: Api, install: Install) -> Iterator[Run]:
    client = request.param
    block = client.find_block()
    english = write_source(block, api.url)
    sources = [english, write_source(block, api.url, TINY), english.replace(DOCUMENTS[0], LONG_TEXT)]
    if block.language == "ts":
        results = run_typescript(sources)
    else:
        results = run_python(install(find_group(client.package)), sources)
    yield Run(block, *results)


def test_vectors_equal_those_of_the_api(run: Run, api: Api) -> None:
    assert "error" not in run.english, run.english
    assert_same_vectors(run.english["vectors"], api.embed(MINILM, DOCUMENTS))
    assert_same_vectors([run.english["query"]], api.embed(MINILM, [QUERY]))


def test_queries_are_embedded_as_queries(run: Run, api: Api) -> None:
    assert "error" not in run.with_prefixes, run.with_prefixes
    assert_same_vectors(run.with_prefixes["vectors"], api.embed(TINY, DOCUMENTS, input_type="passage"))
    assert_same_vectors([run.with_prefixes["query"]], api.embed(TINY, [QUERY], input_type="query"))


def test_a_long_text_is_cut_if_the_code_says_so_and_refused_with_both_counts_otherwise(run: Run, api: Api) -> None:
    if "truncate" in run.block.source:
        assert "error" not in run.long_text, run.long_text
        assert_same_vectors(run.long_text["vectors"], api.embed(MINILM, [LONG_TEXT, DOCUMENTS[1]], truncate="END"))
    else:
        assert "502 tokens exceed the limit of 256" in run.long_text["message"]
