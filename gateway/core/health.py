"""Readiness: whether every served model can embed at this moment."""

import asyncio
import logging
import time

from gateway.engine import EmbedBatch, Engine, ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import enter_freely
from gateway.errors import EngineUnavailableError, GatewayError
from gateway.settings import Settings
from gateway.types import TextItem

logger = logging.getLogger(__name__)

CANARY = TextItem("Are you ready?")

NEVER_S = float("-inf")


class HealthTracker:
    """When each model last succeeded and last failed on clients' own requests, on the clock of `time.monotonic`."""

    def __init__(self) -> None:
        self._success_s: dict[str, float] = {}
        self._failure_s: dict[str, float] = {}

    def record_success(self, model: ServedModel) -> None:
        """Note that the model has just returned vectors."""
        self._success_s[model.public_id] = time.monotonic()

    def record_failure(self, model: ServedModel) -> None:
        """Note that the engine was just unavailable for the model."""
        self._failure_s[model.public_id] = time.monotonic()

    def succeeded_since(self, model: ServedModel, moment_s: float) -> bool:
        """Return whether the model has succeeded since then, and has not failed after that."""
        success_s = self._success_s.get(model.public_id, NEVER_S)
        return success_s >= moment_s and success_s > self._failure_s.get(model.public_id, NEVER_S)

    def failed_since(self, moment_s: float) -> bool:
        """Return whether any model has failed since then."""
        return any(failure_s >= moment_s for failure_s in self._failure_s.values())


class ReadinessProbe:
    """Asks every model for a real vector: servers and steps that report they are healthy may be unable to embed.

    Args:
        engine: The engine to ask.
        tracker: What clients' requests have shown of the same engine.
        settings: How long an inference may take, and for how long its outcome is reused.
    """

    def __init__(self, engine: Engine, tracker: HealthTracker, settings: Settings) -> None:
        self._engine = engine
        self._tracker = tracker
        self._settings = settings
        self._ready = False
        self._probed_s = NEVER_S
        self._probing = asyncio.Lock()

    async def is_ready(self) -> bool:
        """Return whether there are models and every one of them can embed; the outcome is reused for a moment."""
        async with self._probing:
            stale = time.monotonic() - self._probed_s > self._settings.ready_ttl_s
            if stale or self._tracker.failed_since(self._probed_s):
                ready = await self._probe()
                if ready != self._ready:
                    logger.info("the engine is %s", "ready" if ready else "not ready")
                self._ready, self._probed_s = ready, time.monotonic()
            return self._ready

    async def _probe(self) -> bool:
        try:
            models = await self._engine.models()
            if not models:
                models = await self._engine.models(refresh=True)
            await asyncio.gather(*(self._probe_model(model) for model in models.values()))
        except GatewayError as error:
            logger.debug("not ready: %s", error.message)
            return False
        return bool(models)

    async def _probe_model(self, model: ServedModel) -> None:
        """Embed the canary, unless clients' requests have succeeded just now.

        Raises:
            GatewayError: No vector, or an invalid one.
        """
        if self._tracker.succeeded_since(model, time.monotonic() - self._settings.ready_ttl_s):
            return
        started_s = time.monotonic()
        batch = EmbedBatch(model, [CANARY], [estimate_tokens(CANARY, model)], "passage", "END", enter_freely)
        try:
            async with asyncio.timeout(self._settings.canary_timeout_s):
                result = await self._engine.embed(batch)
        except (GatewayError, TimeoutError) as error:
            # Under load the canary may wait too long while clients' requests succeed.
            if self._tracker.succeeded_since(model, started_s):
                return
            raise EngineUnavailableError(f"the canary failed: {error!r}") from error
        if result.failures:
            raise EngineUnavailableError("the canary failed")
        result.check_finite()
