"""The application: settings, parts, lifespan, routes, error handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway.access import AccessPolicy, build_access
from gateway.dialects.nim_metadata import NimMetadata
from gateway.dialects.openai_nim import OpenAINim
from gateway.dialects.openrouter import OpenRouter
from gateway.docs_page import add_docs_page
from gateway.engine import Engine
from gateway.engine.triton import TritonEngine
from gateway.error_responses import add_error_handlers
from gateway.fetching import ImageFetcher, build_fetcher
from gateway.middleware import RecordMiddleware
from gateway.openapi import describe_with_schemas
from gateway.release import release_version
from gateway.services import build_services
from gateway.settings import Settings


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    fetcher: ImageFetcher | None = None,
    access: AccessPolicy | None = None,
) -> FastAPI:
    """Puts the application together; nothing outside is touched before it starts.

    Args:
        settings: of the process.
        engine: what embeds; Triton, as the settings say, if None.
        fetcher: what gets pictures by address; as the settings say, if None.
        access: who may ask; as the settings say, if None.
    """
    engine = engine or TritonEngine(settings)
    services = build_services(settings, engine, fetcher or build_fetcher(settings), access or build_access(settings))
    dialects = (OpenAINim(services), NimMetadata(services), OpenRouter(services))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.close()

    app = FastAPI(
        title="Tessera",
        version=release_version(),
        lifespan=lifespan,
        routes=[route for dialect in dialects for route in dialect.routes()],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(RecordMiddleware, request_timeout_s=settings.request_timeout_s, metrics=services.metrics)
    add_error_handlers(app)
    add_docs_page(app)
    app.openapi = describe_with_schemas(app)  # type: ignore[method-assign]
    return app
