"""Readiness: whether every served model embeds or ranks correctly at this moment."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gateway.engine import EmbedBatch, EmbedResult, Engine, GoldenScore, ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import enter_freely
from gateway.errors import EngineUnavailableError, GatewayError, InvalidVectorError, ModelReplacedError
from gateway.settings import Settings
from gateway.types import Task, TextItem

logger = logging.getLogger(__name__)

CANARY = TextItem("Are you ready?")
"""Embedded, or ranked by itself, to see whether a model without a golden text responds."""

GOLDEN_INTERVAL_S = 10.0
"""How often a model's golden text is embedded, however well clients' requests go: their vectors cannot be checked."""

NEVER_S = float("-inf")

MAX_PROBES = 3
"""How often the models are probed again because one was replaced meanwhile."""

Identity: TypeAlias = tuple[str, str]
"""Public id and fingerprint: what is known of a model says nothing about the one that takes its place."""

ModelStatus: TypeAlias = Literal["ready", "not ready", "wrong vectors", "wrong scores", "unavailable"]

WRONG_OUTPUTS: Mapping[Task, ModelStatus] = {"embed": "wrong vectors", "rank": "wrong scores"}


class HealthTracker:
    """When each model last succeeded and last failed on clients' own requests, on the clock of `time.monotonic`."""

    def __init__(self) -> None:
        self._success_s: dict[Identity, float] = {}
        self._failure_s: dict[Identity, float] = {}
        self._distrusted: set[Identity] = set()

    def record_success(self, model: ServedModel) -> None:
        """Note that the model has just returned vectors."""
        self._success_s[model.identity] = time.monotonic()

    def record_failure(self, model: ServedModel) -> None:
        """Note that the engine was just unavailable for the model."""
        self._failure_s[model.identity] = time.monotonic()

    def succeeded_since(self, model: ServedModel, moment_s: float) -> bool:
        """Return whether the model has succeeded since then, and has not failed after that."""
        success_s = self._success_s.get(model.identity, NEVER_S)
        return success_s >= moment_s and success_s > self._failure_s.get(model.identity, NEVER_S)

    def failed_since(self, moment_s: float) -> bool:
        """Return whether any model has failed since then."""
        return any(failure_s >= moment_s for failure_s in self._failure_s.values())

    def record_check(self, model: ServedModel, *, is_correct: bool) -> None:
        """Note whether the model has just embedded, or ranked, its canary correctly."""
        if is_correct and model.identity in self._distrusted:
            logger.warning("model %s is correct again", model.public_id)
            self._distrusted.discard(model.identity)
        elif not is_correct and model.identity not in self._distrusted:
            logger.error(
                "model %s returns %s: its requests are refused until it does not",
                model.public_id,
                WRONG_OUTPUTS[model.task],
            )
            self._distrusted.add(model.identity)

    def check_trusted(self, model: ServedModel) -> None:
        """Refuse requests of a model that was wrong about its canary: a wrong vector or score is worse than none.

        Raises:
            EngineUnavailableError: It has.
        """
        if model.identity in self._distrusted:
            raise EngineUnavailableError(
                f"the model returns {WRONG_OUTPUTS[model.task]} at the moment, and is not served"
            )


@dataclass(frozen=True, slots=True)
class Readiness:
    """The outcome of a readiness probe.

    Attributes:
        is_ready: Whether all models that could be loaded embed correctly, and there is one.
        models: The status of each model, by public id; of one that could not be loaded perhaps by its slug.
    """

    is_ready: bool
    models: Mapping[str, ModelStatus] = field(default_factory=dict)


class ReadinessProbe:
    """Asks every model for a real vector: servers and steps that report they are healthy may be unable to embed.

    Args:
        engine: The engine to ask.
        tracker: What clients' requests have shown of the same engine; learns which models are wrong.
        settings: How long an inference may take, and for how long its outcome is reused.
    """

    def __init__(self, engine: Engine, tracker: HealthTracker, settings: Settings) -> None:
        self._engine = engine
        self._tracker = tracker
        self._settings = settings
        self._last = Readiness(False)
        self._probed_s = NEVER_S
        self._compared_s: dict[Identity, float] = {}
        self._probing = asyncio.Lock()
        self._draining = False

    def drain(self) -> None:
        """Report from now on that the service is not ready, because it is about to stop."""
        logger.info("draining: not ready any more")
        self._draining = True

    async def watch(self) -> None:
        """Compare golden embeddings regularly, whether or not anybody asks for readiness; never returns."""
        while True:
            await self.check()
            await asyncio.sleep(GOLDEN_INTERVAL_S)

    async def check(self) -> Readiness:
        """Return whether there are models and every one of them can embed; the outcome is reused for a moment."""
        async with self._probing:
            stale = time.monotonic() - self._probed_s > self._settings.ready_ttl_s
            if stale or self._tracker.failed_since(self._probed_s):
                readiness = await self._probe()
                if readiness != self._last:
                    state = "ready" if readiness.is_ready else "not ready"
                    models = ", ".join(f"{name}: {status}" for name, status in readiness.models.items())
                    logger.info("the engine is %s (%s)", state, models or "no models")
                self._last, self._probed_s = readiness, time.monotonic()
            return Readiness(False, self._last.models) if self._draining else self._last

    async def _probe(self) -> Readiness:
        try:
            models = await self._engine.models()
            for _ in range(MAX_PROBES):
                if not models:
                    models = await self._engine.models(refresh=True)
                try:
                    statuses = await asyncio.gather(*(self._probe_model(model) for model in models.values()))
                    break
                except ModelReplacedError:
                    models = {}
            else:
                return self._last
        except GatewayError as error:
            logger.debug("not ready: %s", error.message)
            return Readiness(False)
        unavailable: dict[str, ModelStatus] = dict.fromkeys(sorted(self._engine.unavailable_models()), "unavailable")
        is_ready = bool(models) and all(status == "ready" for status in statuses)
        return Readiness(is_ready, dict(zip(models, statuses, strict=True)) | unavailable)

    async def _probe_model(self, model: ServedModel) -> ModelStatus:
        """Embed the canary, unless clients' requests have succeeded just now and it is not time to compare vectors."""
        started_s = time.monotonic()
        compared_s = self._compared_s.get(model.identity, NEVER_S)
        if model.golden is None or started_s - compared_s < GOLDEN_INTERVAL_S:
            if self._tracker.succeeded_since(model, started_s - self._settings.ready_ttl_s):
                return "ready"
        try:
            async with asyncio.timeout(self._settings.canary_timeout_s):
                is_correct = is_canary_right(model, await self._engine.embed(make_canary(model)))
        except ModelReplacedError:
            raise
        except InvalidVectorError:
            is_correct = False
        except (GatewayError, TimeoutError) as error:
            # Under load the canary may wait too long while clients' requests succeed.
            if self._tracker.succeeded_since(model, started_s):
                return "ready"
            logger.debug("model %s is not ready: %r", model.public_id, error)
            return "not ready"
        self._compared_s[model.identity] = time.monotonic() if is_correct else NEVER_S
        self._tracker.record_check(model, is_correct=is_correct)
        return "ready" if is_correct else WRONG_OUTPUTS[model.task]


def make_canary(model: ServedModel) -> EmbedBatch:
    """Return the batch of the model's golden text, or of the canary if it has none."""
    item = TextItem(model.golden.text) if model.golden else CANARY
    query = None
    if model.task == "rank":
        query = model.golden.query if isinstance(model.golden, GoldenScore) else CANARY.text
    return EmbedBatch(model, [item], [estimate_tokens(item, model)], "passage", "END", enter_freely, query=query)


def is_canary_right(model: ServedModel, result: EmbedResult) -> bool:
    """Return whether a result is the vector, or the score, of the model's canary.

    Raises:
        EngineUnavailableError: There is no vector.
        InvalidVectorError: The vector is not made of finite numbers.
    """
    if result.failures:
        raise EngineUnavailableError("the canary failed")
    result.check_finite()
    return model.golden is None or model.golden.matches(result.embeddings[0])
