"""OpenRouter's API, under `/api/v1`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Dialect, Services, context_of
from gateway.api.embeddings import (
    EmbeddingsResponse,
    Usage,
    UsageWithTruncation,
    build_response,
    embed_request,
    json_response,
)
from gateway.api.middleware import DialectRoute
from gateway.api.nim_metadata import read_query_parameter
from gateway.api.openai_nim import read_model_name
from gateway.api.openapi import (
    CALLING_ENGINE,
    EMBEDDING,
    json_body,
    json_responses,
    path_parameter,
    query_parameters,
)
from gateway.api.openrouter_models import describe_endpoints, describe_model
from gateway.api.provider_preferences import ProviderPreferences, check_provider, check_quantizations
from gateway.api.request import EmbeddingsBody
from gateway.core.results import Truncation
from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError

DIALECT = Dialect("openrouter", "OpenRouter", status_overrides={503: 529})

MAX_PAGE = 500

Ignored = Annotated[Raw, Meta(description="Accepted and ignored.")] | UnsetType
"""Listed on the pages of embedding models, or sent by OpenRouter's SDK, and meaningless here."""


class OpenRouterBody(EmbeddingsBody):
    """What to embed, and how to respond, with OpenRouter's own fields."""

    provider: Annotated[ProviderPreferences | None, Meta(description="Which providers may respond.")] = None
    temperature: Ignored = UNSET
    top_p: Ignored = UNSET
    seed: Ignored = UNSET
    max_tokens: Ignored = UNSET
    response_format: Ignored = UNSET
    session_id: Ignored = UNSET
    trace: Ignored = UNSET


@dataclass(slots=True)
class OpenRouterUsage(Usage):
    """Tokens and their price."""

    cost: Annotated[float, Meta(description="Always 0.")]


@dataclass(slots=True)
class OpenRouterUsageWithTruncation(OpenRouterUsage):
    """Tokens, their price, and what was cut; only in responses to which that applies."""

    truncated: Sequence[Truncation]


@dataclass(slots=True)
class OpenRouterResponse(EmbeddingsResponse):
    """The vectors, in the order of the input, with OpenRouter's own fields."""

    usage: OpenRouterUsage
    id: Annotated[str, Meta(description="Id of the response; ends with the request id.")]


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A page of the served models, as OpenRouter describes them."""

    data: list[dict[str, Any]]
    total_count: int
    links: Annotated[dict[str, str | None], Meta(description="`next`: path of the next page, or null.")]


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A served model, as OpenRouter describes it: alone, or with its endpoints."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Count:
    """A number of models."""

    count: int


@dataclass(frozen=True, slots=True)
class ModelCount:
    """How many models are served."""

    data: Count


class OpenRouter:
    """Handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of the dialect."""
        route = partial(DialectRoute, dialect=DIALECT, access=self._services.access)
        list_route = partial(
            route,
            responses=json_responses(DIALECT, ModelPage, InvalidRequestError, *CALLING_ENGINE),
            openapi_extra=query_parameters(
                {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                offset="Number of models to skip.",
                limit="Number of models per page.",
            ),
        )
        model_route = partial(
            route,
            responses=json_responses(DIALECT, ModelDetails, NotFoundError, *CALLING_ENGINE),
            openapi_extra=path_parameter("model", "Id of a model (`author/slug`), with or without a suffix."),
        )
        return [
            route(
                "/api/v1/embeddings",
                self.create_embeddings,
                methods=["POST"],
                responses=json_responses(DIALECT, OpenRouterResponse, *EMBEDDING),
                openapi_extra=json_body(OpenRouterBody),
            ),
            list_route("/api/v1/embeddings/models", handler=self.list_embedding_models),
            list_route("/api/v1/models", handler=self.list_models),
            route(
                "/api/v1/models/count",
                self.count_models,
                responses=json_responses(DIALECT, ModelCount, *CALLING_ENGINE),
            ),
            model_route("/api/v1/models/{model:path}/endpoints", self.list_endpoints),
            model_route("/api/v1/models/{model:path}", self.show_model),
            model_route("/api/v1/model/{model:path}", self.show_model),  # the path that OpenRouter's SDKs request
        ]

    async def create_embeddings(self, request: Request) -> Response:
        """Generate embeddings of texts, images, or both together."""
        response = build_response(await embed_request(request, self._services, OpenRouterBody, self._check_body))
        usage = add_cost(response.usage)
        response_id = f"embd-{context_of(request).request_id}"
        return json_response(OpenRouterResponse(response.object, response.data, response.model, usage, response_id))

    async def list_models(self, request: Request) -> Response:
        """List the served models, in pages."""
        return self._show_page(request, (await self._services.catalogue.models()).values())

    async def list_embedding_models(self, request: Request) -> Response:
        """List the served models that embed, in pages."""
        models = (await self._services.catalogue.models()).values()
        return self._show_page(request, [model for model in models if model.task == "embed"])

    def _show_page(self, request: Request, served: Iterable[ServedModel]) -> Response:
        models = list(served)
        offset = read_count(request, "offset", 0)
        limit = read_count(request, "limit", MAX_PAGE)
        page = [describe_model(model) for model in models[offset : offset + limit]]
        links = {"next": next_page(request, offset + limit, limit, len(models))}
        return json_response(ModelPage(page, len(models), links))

    async def count_models(self, request: Request) -> Response:
        """Return how many models are served."""
        return json_response(ModelCount(Count(len(await self._services.catalogue.models()))))

    async def show_model(self, request: Request) -> Response:
        """Return one served model."""
        resolved = await self._services.catalogue.resolve(read_model_name(request))
        return json_response(ModelDetails(describe_model(resolved.model)))

    async def list_endpoints(self, request: Request) -> Response:
        """Return one served model with its endpoints: this server."""
        resolved = await self._services.catalogue.resolve(read_model_name(request))
        return json_response(ModelDetails(describe_endpoints(resolved.model, self._services.settings.provider_name)))

    async def _check_body(self, body: OpenRouterBody) -> None:
        await check_preferences(
            self._services, body.provider, body.model, has_ignored_parameter=has_ignored_parameter(body)
        )


async def check_preferences(
    services: Services, preferences: ProviderPreferences | None, model: str, *, has_ignored_parameter: bool
) -> None:
    """Apply the `provider` field.

    Raises:
        NotFoundError: It excludes this server.
        InvalidRequestError: It asks for what this server cannot do.
    """
    if preferences is None:
        return
    check_provider(preferences, services.settings.provider_name, has_ignored_parameter)
    if preferences.quantizations:
        resolved = await services.catalogue.resolve(model)
        check_quantizations(preferences, resolved.model)


def add_cost(usage: Usage) -> OpenRouterUsage:
    """Return the usage with its price."""
    counts = usage.prompt_tokens, usage.total_tokens, usage.prompt_tokens_details
    if isinstance(usage, UsageWithTruncation):
        return OpenRouterUsageWithTruncation(*counts, cost=0, truncated=usage.truncated)
    return OpenRouterUsage(*counts, cost=0)


def has_ignored_parameter(body: OpenRouterBody) -> bool:
    """Return whether a body has a parameter of the model that this server accepts and ignores."""
    parameters = (body.temperature, body.top_p, body.seed, body.max_tokens, body.response_format)
    return any(value is not UNSET and bytes(value) != b"null" for value in parameters)


def read_count(request: Request, name: str, default: int) -> int:
    """Return a whole number of the query string.

    Raises:
        InvalidRequestError: It is something else, too long, or given more than once.
    """
    text = read_query_parameter(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidRequestError(f"{name} must be a whole number", param=name)
    return int(text)


def next_page(request: Request, offset: int, limit: int, count: int) -> str | None:
    """Return the path of the next page, or None on the last one."""
    return f"{request.url.path}?offset={offset}&limit={limit}" if 0 < limit and offset < count else None
