"""Every client that reranks, with the code of docs/reranking.md, against transformers."""

import math
import re
from pathlib import Path

import pytest

from tests.clients.conftest import Install
from tests.clients.page import Block, read_blocks
from tests.clients.runs import run_python, write_source
from tests.end_to_end.conftest import ranking_service, reranker
from tests.end_to_end.samples import RERANKER
from tests.export.tiny_rerankers import score_by_reference
from tests.service import PROJECT, Service

__all__ = ["ranking_service", "reranker"]

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

QUERY = "Which animal is loyal?"
DOCUMENTS = ["Cats sleep all day", "Dogs are loyal companions", "Fish swim"]
MODEL_OF_THE_PAGE = "cross-encoder/ms-marco-MiniLM-L6-v2"

BLOCKS = [block for block in read_blocks(PROJECT / "docs" / "reranking.md") if block.language == "python"]

# The environment of each package that a block imports.
GROUPS = {"cohere": "cohere", "langchain_core": "langchain", "litellm": "litellm", "openrouter": "openrouter"}


def test_every_client_of_the_page_is_known() -> None:
    assert {find_package(block.source) for block in BLOCKS} == GROUPS.keys()


@pytest.mark.parametrize("block", BLOCKS)
def test_scores_equal_those_of_transformers(
    ranking_service: Service, reranker: Path, install: Install, block: Block
) -> None:
    source = write_source(block, ranking_service.http_url).replace(MODEL_OF_THE_PAGE, RERANKER)
    [result] = run_python(install(GROUPS[find_package(source)]), [source])
    assert "error" not in result, result
    scores = score_by_reference(reranker, QUERY, DOCUMENTS).tolist()
    if not ("NVIDIARerank" in source or "nvidia_nim" in source):
        scores = [1 / (1 + math.exp(-score)) for score in scores]
    expected = sorted(zip(DOCUMENTS, scores, strict=True), key=lambda entry: -entry[1])
    assert [document for document, _ in result["ranking"]] == [document for document, _ in expected]
    assert [score for _, score in result["ranking"]] == pytest.approx([score for _, score in expected], abs=1e-4)


def find_package(source: str) -> str:
    """Return the package that a source imports first."""
    [package] = re.findall(r"\A(?:from|import) (\w+)", source)
    return str(package)
