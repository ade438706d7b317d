"""The dialect of OpenAI's embeddings API and NVIDIA's embedding NIM, under `/v1`."""

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from gateway.dialect import Dialect
from gateway.dialects import schema
from gateway.dialects.documentation import ASKING_ENGINE, EMBEDDING, error_responses, json_body
from gateway.dialects.embeddings import embed_request
from gateway.dialects.embeddings_response import json_response, render_embeddings
from gateway.dialects.route import DialectRoute
from gateway.engine.triton_metrics import read_triton_metrics
from gateway.errors import EngineUnavailableError
from gateway.services import Services

DIALECT = Dialect("openai_nim", "OpenAI and NVIDIA NIM")


class OpenAINim:
    """The handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        """Keeps what the handlers work with.

        Args:
            services: of the application.
        """
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Every route of the dialect."""
        access = self._services.access
        return [
            DialectRoute(
                "/v1/embeddings",
                self.create_embeddings,
                dialect=DIALECT,
                access=access,
                methods=["POST"],
                response_model=schema.EmbeddingsAnswer,
                responses=error_responses(DIALECT, *EMBEDDING),
                openapi_extra=json_body(schema.EmbeddingsBody),
            ),
            DialectRoute(
                "/v1/models",
                self.list_models,
                dialect=DIALECT,
                access=access,
                response_model=schema.ModelList,
                responses=error_responses(DIALECT, *ASKING_ENGINE),
            ),
            DialectRoute("/v1/metrics", self.show_metrics, dialect=DIALECT, response_class=PlainTextResponse),
            DialectRoute(
                "/v1/metrics/triton",
                self.show_triton_metrics,
                dialect=DIALECT,
                response_class=PlainTextResponse,
                responses=error_responses(DIALECT, EngineUnavailableError),
            ),
            DialectRoute("/v1/health/live", self.check_live, dialect=DIALECT, response_model=schema.Live),
            DialectRoute(
                "/v1/health/ready",
                self.check_ready,
                dialect=DIALECT,
                response_model=schema.Ready,
                responses={503: {"model": schema.Ready, "description": "Not ready; see Retry-After."}},
            ),
        ]

    async def create_embeddings(self, request: Request) -> Response:
        """Generate embeddings of texts, images, or both together."""
        return json_response(render_embeddings(await embed_request(request, self._services)))

    async def list_models(self, request: Request) -> Response:
        """List the served models."""
        models = await self._services.catalogue.models()
        data = [
            {"id": model.public_id, "object": "model", "created": model.created_s, "owned_by": model.owner}
            for model in models.values()
        ]
        return json_response({"object": "list", "data": data})

    async def show_metrics(self, request: Request) -> Response:
        """Show this server's numbers to Prometheus."""
        text, content_type = self._services.metrics.render()
        return Response(text, media_type=content_type)

    async def show_triton_metrics(self, request: Request) -> Response:
        """Show Triton's own numbers to Prometheus: queue and compute time of every step, batches, failures."""
        page = await read_triton_metrics(self._services.settings.triton_metrics_url)
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def check_live(self, request: Request) -> Response:
        """Say that this process answers."""
        return json_response({"object": "health.response", "message": "live", "live": True})

    async def check_ready(self, request: Request) -> Response:
        """Say whether every model has just answered a real inference."""
        ready = await self._services.readiness.is_ready()
        message = "ready" if ready else "not ready"
        content = {"object": "health.response", "message": message, "ready": ready}
        return json_response(content, 200 if ready else 503, None if ready else {"retry-after": "1"})
