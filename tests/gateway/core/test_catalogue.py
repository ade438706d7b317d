"""How the names that clients write find their model."""

from dataclasses import replace

import pytest

from gateway.core.catalogue import Catalogue, ResolvedName, match_name
from gateway.engine import ServedModel
from gateway.errors import EngineUnavailableError, ModelNotFoundError
from tests.gateway.fake_engine import TEXT_MODEL, FakeEngine

PLAIN = replace(TEXT_MODEL, public_id="a/plain")
ODD = replace(TEXT_MODEL, public_id="a/plain-query")
MODELS = {model.public_id: model for model in (PLAIN, ODD)}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/plain", ResolvedName(PLAIN)),
        ("a/plain:free", ResolvedName(PLAIN)),
        ("a/plain-passage", ResolvedName(PLAIN, "passage")),
        ("a/plain-passage:free", ResolvedName(PLAIN, "passage")),
        ("a/plain:free-passage", ResolvedName(PLAIN, "passage")),
        ("a/plain-query", ResolvedName(ODD)),  # its own id comes before the suffix
        ("a/plain-query-query", ResolvedName(ODD, "query")),
        ("A/plain", None),
        ("plain", None),
        ("-query", None),
        (":free", None),
        ("", None),
    ],
)
def test_names_are_matched_with_their_suffixes(name: str, found: ResolvedName | None) -> None:
    assert match_name(name, MODELS) == found


async def test_an_unknown_name_refreshes_the_list_but_not_every_time() -> None:
    class CountingEngine(FakeEngine):
        refreshes = 0

        async def models(self, *, refresh: bool = False) -> dict[str, ServedModel]:
            self.refreshes += refresh
            return MODELS if self.refreshes else {"a/old": PLAIN}

    engine = CountingEngine()
    catalogue = Catalogue(engine)
    assert (await catalogue.resolve("a/plain")).model is PLAIN
    for _ in range(5):
        with pytest.raises(ModelNotFoundError):
            await catalogue.resolve("a/unknown")
    assert engine.refreshes == 1


async def test_only_some_of_many_models_are_named() -> None:
    engine = FakeEngine(served=tuple(replace(TEXT_MODEL, public_id=f"a/{number}") for number in range(500)))
    with pytest.raises(ModelNotFoundError) as unknown:
        await Catalogue(engine).resolve("b")
    assert len(unknown.value.message) < 500


async def test_no_models_yet_is_unavailable_rather_than_not_found() -> None:
    with pytest.raises(EngineUnavailableError):
        await Catalogue(FakeEngine(served=())).resolve("a/plain")
