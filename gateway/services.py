"""What the routes work with, put together in one place."""

from dataclasses import dataclass

from gateway.access import AccessPolicy
from gateway.admission import Admission
from gateway.catalogue import Catalogue
from gateway.embedder import Embedder
from gateway.engine import Engine
from gateway.fetching import ImageFetcher
from gateway.health import ReadinessProbe
from gateway.history import AnswerHistory
from gateway.metrics import Metrics
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one application.

    Attributes:
        settings: of the process.
        catalogue: served models by name.
        embedder: answers embeddings requests.
        readiness: whether it can.
        access: who may ask.
        admission: how much is done at a time.
        metrics: what is counted.
    """

    settings: Settings
    catalogue: Catalogue
    embedder: Embedder
    readiness: ReadinessProbe
    access: AccessPolicy
    admission: Admission
    metrics: Metrics


def build_services(settings: Settings, engine: Engine, fetcher: ImageFetcher, access: AccessPolicy) -> Services:
    """Puts the parts together around an engine, which need not be started yet."""
    catalogue = Catalogue(engine)
    history = AnswerHistory()
    admission = Admission(settings)
    return Services(
        settings=settings,
        catalogue=catalogue,
        embedder=Embedder(
            engine, catalogue, history, fetcher, admission, settings.int8_scale, settings.max_fetched_bytes
        ),
        readiness=ReadinessProbe(engine, history, settings),
        access=access,
        admission=admission,
        metrics=Metrics(admission),
    )
