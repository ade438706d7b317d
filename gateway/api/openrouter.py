"""OpenRouter's API, under `/api/v1`."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote as percent_encode

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Dialect, Services, context_of
from gateway.api.embeddings import EmbeddingsResponse, Usage, build_response, embed_request, json_response
from gateway.api.middleware import DialectRoute
from gateway.api.nim_metadata import read_query_parameter
from gateway.api.openapi import CALLING_ENGINE, EMBEDDING, json_body, json_responses, query_parameters
from gateway.api.request import EmbeddingsBody
from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError

DIALECT = Dialect("openrouter", "OpenRouter", status_overrides={503: 529})

MAX_PAGE = 500

Ignored = Annotated[Raw, Meta(description="Accepted and ignored.")] | UnsetType
"""Listed on the pages of embedding models, or sent by OpenRouter's SDK, and meaningless here."""


class ProviderPreferences(Struct):
    """OpenRouter's provider preferences; fields not listed have no effect."""

    only: Annotated[list[str] | None, Meta(description="Providers that may respond; 404 without this one.")] = None
    order: Annotated[
        list[str] | None,
        Meta(description="Providers to try; 404 without this one, unless `allow_fallbacks` is true."),
    ] = None
    allow_fallbacks: Annotated[Any, Meta(description="Whether providers outside `order` may respond.")] = None


class OpenRouterBody(EmbeddingsBody):
    """What to embed, and how to respond, with OpenRouter's own fields."""

    provider: ProviderPreferences | None = None
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
        access = self._services.access
        return [
            DialectRoute(
                "/api/v1/embeddings",
                self.create_embeddings,
                dialect=DIALECT,
                access=access,
                methods=["POST"],
                responses=json_responses(DIALECT, OpenRouterResponse, *EMBEDDING),
                openapi_extra=json_body(OpenRouterBody),
            ),
            *(self._model_route(path) for path in ("/api/v1/embeddings/models", "/api/v1/models")),
            DialectRoute(
                "/api/v1/models/count",
                self.count_models,
                dialect=DIALECT,
                access=access,
                responses=json_responses(DIALECT, ModelCount, *CALLING_ENGINE),
            ),
        ]

    def _model_route(self, path: str) -> BaseRoute:
        return DialectRoute(
            path,
            self.list_models,
            dialect=DIALECT,
            access=self._services.access,
            responses=json_responses(DIALECT, ModelPage, InvalidRequestError, *CALLING_ENGINE),
            openapi_extra=query_parameters(
                {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                offset="Number of models to skip.",
                limit="Number of models per page.",
            ),
        )

    async def create_embeddings(self, request: Request) -> Response:
        """Generate embeddings of texts, images, or both together."""
        response = build_response(await embed_request(request, self._services, OpenRouterBody, self._check_provider))
        usage = response.usage
        with_cost = OpenRouterUsage(usage.prompt_tokens, usage.total_tokens, usage.prompt_tokens_details, cost=0)
        response_id = f"embd-{context_of(request).request_id}"
        return json_response(OpenRouterResponse(response.object, response.data, response.model, with_cost, response_id))

    async def list_models(self, request: Request) -> Response:
        """List the served models, in pages."""
        models = list((await self._services.catalogue.models()).values())
        offset = read_count(request, "offset", 0)
        limit = read_count(request, "limit", MAX_PAGE)
        page = [describe_model(model) for model in models[offset : offset + limit]]
        links = {"next": next_page(request, offset + limit, limit, len(models))}
        return json_response(ModelPage(page, len(models), links))

    async def count_models(self, request: Request) -> Response:
        """Return how many models are served."""
        return json_response(ModelCount(Count(len(await self._services.catalogue.models()))))

    def _check_provider(self, body: OpenRouterBody) -> None:
        """Apply the `provider` field: this server is the only provider there is.

        An `order` without this server excludes it unless fallbacks are explicitly allowed.

        Raises:
            NotFoundError: The field excludes this server.
        """
        if body.provider is None:
            return
        name = self._services.settings.provider_name.lower()
        only = [each.lower() for each in body.provider.only or []]
        order = [each.lower() for each in body.provider.order or []]
        out_of_order = order and name not in order and body.provider.allow_fallbacks is not True
        if (only and name not in only) or out_of_order:
            raise NotFoundError("no allowed providers are available for the selected model", param="provider")


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


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Return a model as OpenRouter lists it, with every field that its own SDKs require."""
    modalities = ["text", "image"] if model.takes_images else ["text"]
    return {
        "id": model.public_id,
        "canonical_slug": model.public_id,
        "hugging_face_id": str(model.manifest.get("source", "")) or None,
        "name": model.public_id.rsplit("/", 1)[-1],
        "description": str(model.manifest.get("description", "")),
        "created": model.created_s,
        "context_length": model.max_tokens,
        "architecture": {
            "modality": "+".join(modalities) + "->embeddings",
            "input_modalities": modalities,
            "output_modalities": ["embeddings"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {"prompt": "0", "completion": "0", "request": "0", "image": "0"},
        "top_provider": {
            "context_length": model.max_tokens,
            "max_completion_tokens": None,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/metadata?model={percent_encode(model.public_id)}"},
    }
