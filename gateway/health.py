"""Whether the service lives, and whether it can embed at this moment."""

import asyncio
import logging
import time

from gateway.admission import Place
from gateway.deadline import Deadline, DeadlineTimer
from gateway.engine import EmbedBatch, Engine, ServedModel
from gateway.errors import EngineUnavailableError, GatewayError
from gateway.history import AnswerHistory
from gateway.items import TextItem
from gateway.settings import Settings

logger = logging.getLogger(__name__)

CANARY = TextItem("Is anybody there?")


class ReadinessProbe:
    """Asks every model for a real vector; servers and steps that say they are well can still be unable to embed."""

    def __init__(self, engine: Engine, history: AnswerHistory, settings: Settings) -> None:
        """Asks nothing yet.

        Args:
            engine: to ask.
            history: of the same engine.
            settings: how long an answer may take and counts.
        """
        self._engine = engine
        self._history = history
        self._settings = settings
        self._ready = False
        self._asked_s = float("-inf")
        self._asking = asyncio.Lock()

    async def is_ready(self) -> bool:
        """Whether every served model, at least one, has just answered; the answer is kept for a moment."""
        async with self._asking:
            stale = time.monotonic() - self._asked_s > self._settings.ready_ttl_s
            if stale or self._history.failed_since(self._asked_s):
                ready = await self._ask()
                if ready != self._ready:
                    logger.info("the engine is %s", "ready" if ready else "not ready")
                self._ready, self._asked_s = ready, time.monotonic()
            return self._ready

    async def _ask(self) -> bool:
        try:
            models = await self._engine.models()
            if not models:
                models = await self._engine.models(refresh=True)
            await asyncio.gather(*(self._ask_model(model) for model in models.values()))
        except GatewayError as error:
            logger.debug("not ready: %s", error.message)
            return False
        return bool(models)

    async def _ask_model(self, model: ServedModel) -> None:
        """Embeds the canary, unless clients have had answers for as long as a canary may take.

        Raises:
            GatewayError: no answer, or no good one.
        """
        timeout_s = self._settings.canary_timeout_s
        if self._history.answered_since(model, time.monotonic() - self._settings.ready_ttl_s):
            return
        started_s = time.monotonic()
        batch = EmbedBatch(model, [CANARY], "passage", "END", Place())
        try:
            with DeadlineTimer(Deadline.after(timeout_s)):
                embedded = await self._engine.embed(batch)
        except GatewayError:
            # Under load the canary may wait too long while others are answered.
            if self._history.answered_since(model, started_s):
                return
            raise
        if embedded.failures:
            raise EngineUnavailableError("the canary failed")
        embedded.check_finite()
