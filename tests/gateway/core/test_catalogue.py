"""How the names that clients write find their model."""

from collections.abc import Container, Mapping
from dataclasses import replace

import pytest

from gateway.core.catalogue import Catalogue, ResolvedName, match_name
from gateway.engine import ServedModel
from gateway.errors import EngineUnavailableError, InvalidRequestError, ModelNotFoundError
from gateway.types import Task
from tests.gateway.fake_engine import RANK_MODEL, TEXT_MODEL, FakeEngine

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
    assert match_name(name, MODELS, {}) == found


ALIASES = {"small": "a/plain", "google/preview-query": "a/plain", "a/plain": "a/plain-query", "gone": "a/gone"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("small", ResolvedName(PLAIN)),
        ("small:free", ResolvedName(PLAIN)),
        ("small-query", ResolvedName(PLAIN, "query")),
        ("small-passage:free", ResolvedName(PLAIN, "passage")),
        ("google/preview-query", ResolvedName(PLAIN)),  # its own name comes before the suffix
        ("a/plain", ResolvedName(PLAIN)),  # a served model's name comes before an alias
        ("gone", None),
        ("Small", None),
    ],
)
def test_aliases_are_matched_with_their_suffixes(name: str, found: ResolvedName | None) -> None:
    assert match_name(name, MODELS, ALIASES) == found


async def test_aliases_without_effect_are_not_listed_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    aliases = {"small": PLAIN.public_id, PLAIN.public_id: ODD.public_id, "a/plain-passage": "a/x", "gone": "a/gone"}
    catalogue = Catalogue(FakeEngine(served=(PLAIN, ODD)), aliases)
    for _ in range(3):
        assert await catalogue.aliases() == {"small": PLAIN}
        assert (await catalogue.resolve("small")).model is PLAIN
    assert [record.getMessage().partition(" has no effect")[0] for record in caplog.records] == [
        "the alias 'a/plain'",
        "the alias 'a/plain-passage'",
        "the alias 'gone'",
    ]


async def test_an_alias_does_not_refresh_the_list() -> None:
    class FixedEngine(FakeEngine):
        async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
            assert not refresh
            return MODELS

    assert (await Catalogue(FixedEngine(), {"small": "a/plain"}).resolve("small-query")).input_type == "query"


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


RANKER = replace(RANK_MODEL, public_id="a/ranker")


@pytest.mark.parametrize(
    ("name", "task", "found"),
    [
        ("", "embed", PLAIN),
        ("", "rank", RANKER),
        ("a/ranker", "rank", RANKER),
        ("a/ranker:free", "rank", RANKER),
        ("alias", "rank", RANKER),
        ("a/ranker", None, RANKER),
    ],
)
async def test_a_task_chooses_among_models_without_a_name(name: str, task: Task | None, found: ServedModel) -> None:
    catalogue = Catalogue(FakeEngine(served=(PLAIN, RANKER)), {"alias": "a/ranker"})
    assert (await catalogue.resolve(name, task)).model is found


async def test_models_for_another_task_are_not_offered() -> None:
    catalogue = Catalogue(FakeEngine(served=(PLAIN, RANKER)))
    with pytest.raises(ModelNotFoundError, match=r"model 'b' not found; available: 'a/ranker'$"):
        await catalogue.resolve("b", "rank")
    with pytest.raises(
        InvalidRequestError, match="model 'a/ranker' ranks and cannot embed; models that can: 'a/plain'"
    ):
        await catalogue.resolve("a/ranker", "embed")
    with pytest.raises(InvalidRequestError, match="model 'a/plain' embeds and cannot rank; models that can: none"):
        await Catalogue(FakeEngine(served=(PLAIN,))).resolve("a/plain", "rank")


async def test_no_models_yet_is_unavailable_rather_than_not_found() -> None:
    with pytest.raises(EngineUnavailableError):
        await Catalogue(FakeEngine(served=())).resolve("a/plain")


@pytest.mark.parametrize("name", ["org/Lost-Model", "org/Lost-Model-query", "org/Lost-Model:free", "alias"])
async def test_a_model_that_could_not_be_loaded_is_unavailable_rather_than_not_found(name: str) -> None:
    catalogue = Catalogue(FakeEngine(unavailable=frozenset({"lost_model"})), {"alias": "org/Lost-Model"})
    with pytest.raises(EngineUnavailableError, match=r"model '.*' is not available: the server could not load it"):
        await catalogue.resolve(name)
    with pytest.raises(ModelNotFoundError):
        await catalogue.resolve("org/another")


async def test_who_listens_learns_which_models_have_come_and_gone() -> None:
    engine = FakeEngine(served=(PLAIN,))
    changes: list[Container[str]] = []
    catalogue = Catalogue(engine, on_change=changes.append)
    await catalogue.models()
    await catalogue.models()
    engine.served = (PLAIN, ODD)
    await catalogue.models()
    engine.served = (ODD,)
    await catalogue.models()
    assert changes == [{"a/plain"}, {"a/plain", "a/plain-query"}, {"a/plain-query"}]
