"""Served models as clients name them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.engine import Engine, ServedModel
from gateway.errors import EngineUnavailableError, ModelNotFoundError
from gateway.items import InputType
from gateway.quotation import quote

FREE_SUFFIX = ":free"
"""OpenRouter's mark of a model that costs nothing, as all do here."""

INPUT_TYPE_SUFFIXES: Mapping[str, InputType] = {"-query": "query", "-passage": "passage"}

MIN_REFRESH_S = 1.0
"""An unknown name has the list of models read anew at most this often."""

MAX_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model and what its name said besides.

    Attributes:
        model: the served model.
        input_type: by the name's suffix, or None.
    """

    model: ServedModel
    input_type: InputType | None = None


class Catalogue:
    """The engine's models by the names clients use."""

    def __init__(self, engine: Engine) -> None:
        """Reads nothing yet.

        Args:
            engine: that serves the models.
        """
        self._engine = engine
        self._refreshed_s = float("-inf")

    async def models(self) -> Mapping[str, ServedModel]:
        """The served models by public id.

        Raises:
            EngineUnavailableError: nobody there who could say.
        """
        return await self._engine.models()

    async def find(self, name: str) -> FoundModel:
        """The model of a name.

        Args:
            name: a public id, with or without `-query` or `-passage`, and `:free`.

        Raises:
            ModelNotFoundError: there is none.
            EngineUnavailableError: nobody there who could say, or no model is ready.
        """
        models = await self._engine.models()
        found = match_name(name, models)
        now_s = time.monotonic()
        if found is None and now_s - self._refreshed_s > MIN_REFRESH_S:
            self._refreshed_s = now_s
            models = await self._engine.models(refresh=True)
            found = match_name(name, models)
        if not models:
            raise EngineUnavailableError("no model is ready yet", retry_after_s=1.0)
        if found is None:
            available = ", ".join(f"'{public_id}'" for public_id in list(models)[:MAX_NAMES_SHOWN])
            raise ModelNotFoundError(f"model {quote(name)} not found; available: {available}", param="model")
        return found


def match_name(name: str, models: Mapping[str, ServedModel]) -> FoundModel | None:
    """The model a name means: its own id before any suffix is read off it."""
    for candidate in (name, name.removesuffix(FREE_SUFFIX)):
        if candidate in models:
            return FoundModel(models[candidate])
        for suffix, input_type in INPUT_TYPE_SUFFIXES.items():
            base = candidate.removesuffix(suffix)
            for public_id in (base, base.removesuffix(FREE_SUFFIX)):
                if base != candidate and public_id in models:
                    return FoundModel(models[public_id], input_type)
    return None
