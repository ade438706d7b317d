"""The application: settings, parts, lifespan, routes, error handlers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from gateway.access import AccessPolicy, build_access
from gateway.dialects.openai_nim import OpenAINim
from gateway.engine import Engine
from gateway.engine.triton import TritonEngine
from gateway.error_responses import add_error_handlers
from gateway.fetching import ImageFetcher, build_fetcher
from gateway.middleware import RecordMiddleware
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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.close()

    app = FastAPI(
        title="Tessera",
        version=release_version(),
        lifespan=lifespan,
        routes=OpenAINim(services).routes(),
        redirect_slashes=False,
    )
    app.add_middleware(RecordMiddleware, request_timeout_s=settings.request_timeout_s)
    add_error_handlers(app)
    return app


def release_version() -> str:
    """The installed package's version; `0` where it runs from a source tree that is not installed."""
    try:
        return version("tessera")
    except PackageNotFoundError:
        return "0"
