"""The served models, by the names that clients use."""

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from gateway.engine import Engine, ServedModel
from gateway.engine.discovery import make_slug
from gateway.errors import EngineUnavailableError, InvalidRequestError, ModelNotFoundError, quote
from gateway.types import InputType, Task

logger = logging.getLogger(__name__)

FREE_SUFFIX = ":free"
"""OpenRouter's mark of a model that costs nothing, as all do here."""

VERBS: Mapping[Task, str] = {"embed": "embeds", "rank": "ranks"}

INPUT_TYPE_SUFFIXES: Mapping[str, InputType] = {"-query": "query", "-passage": "passage"}

MIN_REFRESH_S = 1.0
"""An unknown name makes the gateway read the list of models again, at most this often."""

MAX_NAMES_SHOWN = 10

UNAVAILABLE_RETRY_S = 30.0
"""A model that could not be loaded comes back when the engine is restarted, at the earliest."""


@dataclass(frozen=True, slots=True)
class ResolvedName:
    """What a model name means.

    Attributes:
        model: The served model.
        input_type: Set by the name's suffix, or None.
    """

    model: ServedModel
    input_type: InputType | None = None


class Catalogue:
    """The engine's models by the names that clients use.

    Args:
        engine: Serves the models.
        aliases: Public ids of models by further names. A name that a served model has anyway is no alias.
        on_change: Is told the public ids when models have come or gone.
    """

    def __init__(
        self,
        engine: Engine,
        aliases: Mapping[str, str] | None = None,
        on_change: Callable[[Container[str]], None] = lambda public_ids: None,
    ) -> None:
        self._engine = engine
        self._on_change = on_change
        self._aliases = aliases or {}
        self._public_ids: frozenset[str] = frozenset()
        self._refreshed_s = float("-inf")

    async def models(self) -> Mapping[str, ServedModel]:
        """Return the served models by public id.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        return await self._read_models()

    async def refresh(self) -> Mapping[str, ServedModel]:
        """Return the served models by public id, as the engine has them now.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        return await self._read_models(refresh=True)

    async def aliases(self) -> Mapping[str, ServedModel]:
        """Return the models that have an alias, by alias.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        models = await self._read_models()
        return {
            alias: models[public_id]
            for alias, public_id in self._aliases.items()
            if public_id in models and split_name(alias, models) is None
        }

    async def resolve(self, name: str, task: Task | None = None) -> ResolvedName:
        """Find the model of a name.

        Args:
            name: A public id or an alias, with or without `-query` or `-passage`, and `:free`; empty for the only model
                there is.
            task: What the model has to do; None for anything.

        Raises:
            ModelNotFoundError: There is none.
            InvalidRequestError: It does something else.
            EngineUnavailableError: The engine cannot be reached, the model could not be loaded, or no model is ready.
        """
        models = await self._read_models()
        found = match_name(name, models, self._aliases, task)
        now_s = time.monotonic()
        if found is None and now_s - self._refreshed_s > MIN_REFRESH_S:
            self._refreshed_s = now_s
            models = await self._read_models(refresh=True)
            found = match_name(name, models, self._aliases, task)
        if found is not None and task in (None, found.model.task):
            return found
        if found is None and self._is_unavailable(name):
            raise EngineUnavailableError(
                f"model {quote(name)} is not available: the server could not load it", retry_after_s=UNAVAILABLE_RETRY_S
            )
        if not models:
            raise EngineUnavailableError("no model is ready yet")
        raise explain_mismatch(name, found, models, task)

    def _is_unavailable(self, name: str) -> bool:
        """Return whether a name means a model that the engine could not load."""
        unavailable = UnavailableIds(self._engine.unavailable_models())
        alias = split_name(name, self._aliases)
        return split_name(name, unavailable) is not None or (
            alias is not None and self._aliases[alias[0]] in unavailable
        )

    async def _read_models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        models = await self._engine.models(refresh=refresh)
        if models and models.keys() != self._public_ids:
            self._public_ids = frozenset(models)
            self._on_change(self._public_ids)
            self._warn_of_useless_aliases(models)
        return models

    def _warn_of_useless_aliases(self, models: Mapping[str, ServedModel]) -> None:
        for alias, public_id in self._aliases.items():
            if split_name(alias, models) is not None:
                logger.warning("the alias '%s' has no effect: it is the name of a served model", alias)
            elif public_id not in models:
                logger.warning("the alias '%s' has no effect: its model '%s' is not served", alias, public_id)


class UnavailableIds(Container[str]):
    """Public ids of models that could not be loaded, of some of which only the slug is known."""

    def __init__(self, names: Iterable[str]) -> None:
        self._slugs = {make_slug(name) for name in names}

    def __contains__(self, public_id: object) -> bool:
        """Return whether the model of that public id could not be loaded."""
        return make_slug(str(public_id)) in self._slugs


def explain_mismatch(
    name: str, found: ResolvedName | None, models: Mapping[str, ServedModel], task: Task | None
) -> InvalidRequestError | ModelNotFoundError:
    """Return the error for a name that means no model, or one that does something else than the task."""
    suitable = [public_id for public_id, model in models.items() if task in (None, model.task)]
    available = ", ".join(f"'{public_id}'" for public_id in suitable[:MAX_NAMES_SHOWN]) or "none"
    if found is not None:
        subject = f"model '{found.model.public_id}' {VERBS[found.model.task]} and cannot {task}"
        return InvalidRequestError(f"{subject}; models that can: {available}", param="model")
    if not name and task and not suitable:
        return ModelNotFoundError(f"no model that {VERBS[task]} is served", param="model")
    if not name:
        return ModelNotFoundError("several models are served, and the request names none", param="model")
    shown = quote(name)
    subject = f"model {shown}" if shown.startswith("'") else "the model was"
    return ModelNotFoundError(f"{subject} not found; available: {available}", param="model")


def match_name(
    name: str, models: Mapping[str, ServedModel], aliases: Mapping[str, str], task: Task | None = None
) -> ResolvedName | None:
    """Return what a name means: a served model's own name wins over an alias; no name means the task's only model."""
    if not name:
        suitable = [model for model in models.values() if task in (None, model.task)]
        return ResolvedName(suitable[0]) if len(suitable) == 1 else None
    if own := split_name(name, models):
        return ResolvedName(models[own[0]], own[1])
    alias = split_name(name, aliases)
    if alias is not None and (model := models.get(aliases[alias[0]])):
        return ResolvedName(model, alias[1])
    return None


def split_name(name: str, known: Container[str]) -> tuple[str, InputType | None] | None:
    """Return the known name and the input type that a name is made of; a known name may end like a suffix."""
    for candidate in (name, name.removesuffix(FREE_SUFFIX)):
        if candidate in known:
            return candidate, None
        for suffix, input_type in INPUT_TYPE_SUFFIXES.items():
            base = candidate.removesuffix(suffix)
            for known_name in (base, base.removesuffix(FREE_SUFFIX)):
                if base != candidate and known_name in known:
                    return known_name, input_type
    return None
