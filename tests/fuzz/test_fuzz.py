"""The short form of `make fuzz`: the corpus, what was found in the past included, and a few inputs near it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import CORPUS, FINDINGS, TARGETS, open_pool, read_seeds

MAX_EXAMPLES = 150
MAX_FILE_BYTES = 16 * 1024

FILES = [
    (name, path)
    for name, (folder, _) in TARGETS.items()
    for path in [*sorted((CORPUS / folder).iterdir()), *sorted(FINDINGS.glob(f"{name}-*"))]
]


@pytest.fixture(scope="module", autouse=True)
def closed_pool() -> Iterator[None]:
    yield
    open_pool().close()
    open_pool.cache_clear()


@pytest.mark.parametrize(("name", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_file_of_the_corpus_breaks_nothing(name: str, path: Path) -> None:
    TARGETS[name][1](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=MAX_EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(data=st.data())
def test_inputs_near_the_corpus_break_nothing(name: str, data: st.DataObject) -> None:
    folder, target = TARGETS[name]
    target(data.draw(mutate(read_seeds(folder))))


def test_corpus_is_small() -> None:
    assert all(path.stat().st_size <= MAX_FILE_BYTES for _, path in FILES)
