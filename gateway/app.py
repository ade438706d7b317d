"""The application: settings, services, lifespan, routes, error handlers."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.access import AccessPolicy, build_access
from gateway.api.cohere import Cohere
from gateway.api.context import Services
from gateway.api.error_responses import add_error_handlers
from gateway.api.middleware import ContextMiddleware, RouteTable
from gateway.api.nim_metadata import NimMetadata
from gateway.api.openai_nim import OpenAINim
from gateway.api.openapi import add_openapi
from gateway.api.openrouter import OpenRouter
from gateway.api.rerank import Rerank
from gateway.api.tei import TextEmbeddingsInference
from gateway.api.tokenize import Tokenize
from gateway.core.admission import Admission
from gateway.core.catalogue import Catalogue
from gateway.core.health import HealthTracker, ReadinessProbe
from gateway.core.metrics import Metrics
from gateway.core.service import InferenceService
from gateway.core.token_ids import build_token_id_policy
from gateway.edge.connections import CONNECTIONS, ConnectionTable
from gateway.engine import Engine
from gateway.engine.triton import TritonEngine
from gateway.fetch import FileFetcher, build_fetcher
from gateway.settings import Settings
from gateway.shutdown import drain_on_signals
from gateway.version import package_version


class GatewayApp(FastAPI):
    """FastAPI for the documentation and for what no route serves; the dialects' routes are called ahead of it.

    Args:
        services: Of the application.
        options: Of `FastAPI`.
    """

    def __init__(self, services: Services, **options: Any) -> None:
        super().__init__(**options)
        self._services = services

    def build_middleware_stack(self) -> ASGIApp:
        """Return the whole ASGI application: CORS if set, request context, dialects' routes, FastAPI."""
        settings = self._services.settings
        table = RouteTable(super().build_middleware_stack(), self.routes)
        app = ContextMiddleware(table, settings.request_timeout_s, self._services.metrics, settings.trusted_proxies)
        return allow_origins(app, settings.cors_origins) if settings.cors_origins else app


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    fetcher: FileFetcher | None = None,
    access: AccessPolicy | None = None,
) -> FastAPI:
    """Build the application; nothing outside is touched before it starts.

    Args:
        settings: Of the process.
        engine: Turns items into vectors; Triton if None.
        fetcher: Fetches images by URL; as the settings say if None.
        access: Admits callers; as the settings say if None.
    """
    engine = engine or TritonEngine(settings)
    services = build_services(settings, engine, fetcher or build_fetcher(settings), access or build_access(settings))
    dialects = (
        OpenAINim(services),
        NimMetadata(services),
        OpenRouter(services),
        Cohere(services),
        Rerank(services),
        TextEmbeddingsInference(services),
        Tokenize(services),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        await engine.start()
        watching = asyncio.create_task(services.readiness.watch())
        with drain_on_signals(services.readiness.drain, settings.drain_s):
            yield {CONNECTIONS: ConnectionTable(settings, services.metrics)}
        watching.cancel()
        await engine.close()

    app = GatewayApp(
        services=services,
        title="Tessera",
        version=package_version(),
        lifespan=lifespan,
        routes=[route for dialect in dialects for route in dialect.routes()],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # checked for on every request otherwise
    )
    add_error_handlers(app)
    add_openapi(app, settings)
    return app


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the application with CORS: it answers preflights, which carry no key, and covers errors too."""
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=["*"]
    )


def build_services(settings: Settings, engine: Engine, fetcher: FileFetcher, access: AccessPolicy) -> Services:
    """Build the parts that handlers work with around an engine, which need not be started yet."""
    admission = Admission(settings)
    catalogue = Catalogue(engine, settings.model_aliases, on_change=admission.keep)
    tracker = HealthTracker()
    return Services(
        settings=settings,
        catalogue=catalogue,
        inference=InferenceService(
            engine, catalogue, tracker, fetcher, admission, build_token_id_policy(settings), settings
        ),
        readiness=ReadinessProbe(engine, tracker, settings),
        access=access,
        admission=admission,
        metrics=Metrics(admission),
    )
