"""The served models, by the names that clients use."""

import logging
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass

from gateway.engine import Engine, ServedModel
from gateway.errors import EngineUnavailableError, ModelNotFoundError, quote
from gateway.types import InputType

logger = logging.getLogger(__name__)

FREE_SUFFIX = ":free"
"""OpenRouter's mark of a model that costs nothing, as all do here."""

INPUT_TYPE_SUFFIXES: Mapping[str, InputType] = {"-query": "query", "-passage": "passage"}

MIN_REFRESH_S = 1.0
"""An unknown name makes the gateway read the list of models again, at most this often."""

MAX_NAMES_SHOWN = 10


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
    """

    def __init__(self, engine: Engine, aliases: Mapping[str, str] | None = None) -> None:
        self._engine = engine
        self._aliases = aliases or {}
        self._ids_checked: frozenset[str] = frozenset()
        self._refreshed_s = float("-inf")

    async def models(self) -> Mapping[str, ServedModel]:
        """Return the served models by public id.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        return await self._read_models()

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

    async def resolve(self, name: str) -> ResolvedName:
        """Find the model of a name.

        Args:
            name: A public id or an alias, with or without `-query` or `-passage`, and `:free`; empty for the only model
                there is.

        Raises:
            ModelNotFoundError: There is none.
            EngineUnavailableError: The engine cannot be reached, or no model is ready.
        """
        models = await self._read_models()
        found = match_name(name, models, self._aliases)
        now_s = time.monotonic()
        if found is None and now_s - self._refreshed_s > MIN_REFRESH_S:
            self._refreshed_s = now_s
            models = await self._read_models(refresh=True)
            found = match_name(name, models, self._aliases)
        if not models:
            raise EngineUnavailableError("no model is ready yet")
        if found is None and not name:
            raise ModelNotFoundError("several models are served, and the request names none", param="model")
        if found is None:
            available = ", ".join(f"'{public_id}'" for public_id in list(models)[:MAX_NAMES_SHOWN])
            shown = quote(name)
            subject = f"model {shown}" if shown.startswith("'") else "the model was"
            raise ModelNotFoundError(f"{subject} not found; available: {available}", param="model")
        return found

    async def _read_models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        models = await self._engine.models(refresh=refresh)
        if self._aliases and models and models.keys() != self._ids_checked:
            self._ids_checked = frozenset(models)
            self._warn_of_useless_aliases(models)
        return models

    def _warn_of_useless_aliases(self, models: Mapping[str, ServedModel]) -> None:
        for alias, public_id in self._aliases.items():
            if split_name(alias, models) is not None:
                logger.warning("the alias '%s' has no effect: it is the name of a served model", alias)
            elif public_id not in models:
                logger.warning("the alias '%s' has no effect: its model '%s' is not served", alias, public_id)


def match_name(name: str, models: Mapping[str, ServedModel], aliases: Mapping[str, str]) -> ResolvedName | None:
    """Return what a name means: a served model's own name wins over an alias."""
    if not name and len(models) == 1:
        return ResolvedName(next(iter(models.values())))
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
