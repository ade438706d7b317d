"""The served models, by the names that clients use."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.engine import Engine, ServedModel
from gateway.errors import EngineUnavailableError, ModelNotFoundError, quote
from gateway.types import InputType

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
    """The engine's models by the names that clients use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._refreshed_s = float("-inf")

    async def models(self) -> Mapping[str, ServedModel]:
        """Return the served models by public id.

        Raises:
            EngineUnavailableError: The engine cannot be reached.
        """
        return await self._engine.models()

    async def resolve(self, name: str) -> ResolvedName:
        """Find the model of a name.

        Args:
            name: A public id, with or without `-query` or `-passage`, and `:free`; empty for the only model there is.

        Raises:
            ModelNotFoundError: There is none.
            EngineUnavailableError: The engine cannot be reached, or no model is ready.
        """
        models = await self._engine.models()
        found = match_name(name, models)
        now_s = time.monotonic()
        if found is None and now_s - self._refreshed_s > MIN_REFRESH_S:
            self._refreshed_s = now_s
            models = await self._engine.models(refresh=True)
            found = match_name(name, models)
        if not models:
            raise EngineUnavailableError("no model is ready yet")
        if found is None and not name:
            raise ModelNotFoundError("several models are served, and the request names none", param="model")
        if found is None:
            available = ", ".join(f"'{public_id}'" for public_id in list(models)[:MAX_NAMES_SHOWN])
            raise ModelNotFoundError(f"model {quote(name)} not found; available: {available}", param="model")
        return found


def match_name(name: str, models: Mapping[str, ServedModel]) -> ResolvedName | None:
    """Return what a name means: a public id that happens to end in a suffix wins over the suffix."""
    if not name and len(models) == 1:
        return ResolvedName(next(iter(models.values())))
    for candidate in (name, name.removesuffix(FREE_SUFFIX)):
        if candidate in models:
            return ResolvedName(models[candidate])
        for suffix, input_type in INPUT_TYPE_SUFFIXES.items():
            base = candidate.removesuffix(suffix)
            for public_id in (base, base.removesuffix(FREE_SUFFIX)):
                if base != candidate and public_id in models:
                    return ResolvedName(models[public_id], input_type)
    return None
