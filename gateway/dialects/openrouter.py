"""OpenRouter's dialect, under `/api/v1`."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.dialect import Dialect
from gateway.dialects import schema
from gateway.dialects.documentation import (
    ASKING_ENGINE,
    EMBEDDING,
    error_responses,
    json_body,
    query_parameters,
)
from gateway.dialects.embeddings import embed_request
from gateway.dialects.embeddings_response import json_response, render_embeddings
from gateway.dialects.route import DialectRoute
from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.record import record_of
from gateway.services import Services

DIALECT = Dialect("openrouter", "OpenRouter", statuses={503: 529})

IGNORED_FIELDS = frozenset({"temperature", "top_p", "seed", "max_tokens", "response_format", "session_id", "trace"})
"""Listed on the pages of embedding models, or sent by OpenRouter's SDK, and without meaning here."""

MAX_PAGE = 500


class OpenRouter:
    """The handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        """Keeps what the handlers work with.

        Args:
            services: of the application.
        """
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Every route of the dialect."""
        return [
            DialectRoute(
                "/api/v1/embeddings",
                self.create_embeddings,
                dialect=DIALECT,
                access=self._services.access,
                methods=["POST"],
                response_model=schema.OpenRouterAnswer,
                responses=error_responses(DIALECT, *EMBEDDING),
                openapi_extra=json_body(schema.OpenRouterBody),
            ),
            *(self._model_route(path) for path in ("/api/v1/embeddings/models", "/api/v1/models")),
            DialectRoute(
                "/api/v1/models/count",
                self.count_models,
                dialect=DIALECT,
                access=self._services.access,
                response_model=schema.OpenRouterModelCount,
                responses=error_responses(DIALECT, *ASKING_ENGINE),
            ),
        ]

    def _model_route(self, path: str) -> BaseRoute:
        return DialectRoute(
            path,
            self.list_models,
            dialect=DIALECT,
            access=self._services.access,
            response_model=schema.OpenRouterModelList,
            responses=error_responses(DIALECT, InvalidRequestError, *ASKING_ENGINE),
            openapi_extra=query_parameters(offset="Models to leave out.", limit="Models of a page."),
        )

    async def create_embeddings(self, request: Request) -> Response:
        """Generate embeddings of texts, images, or both together."""
        more_fields = IGNORED_FIELDS | {"provider"}
        result = await embed_request(request, self._services, more_fields=more_fields, check=self._check_provider)
        answer = render_embeddings(result)
        answer["id"] = f"embd-{record_of(request).request_id}"
        answer["usage"]["cost"] = 0
        return json_response(answer)

    async def list_models(self, request: Request) -> Response:
        """List the served models, in pages."""
        models = list((await self._services.catalogue.models()).values())
        offset = read_count(request, "offset", 0)
        limit = read_count(request, "limit", MAX_PAGE)
        page = models[offset : offset + limit]
        content = {"data": [describe_model(model) for model in page], "total_count": len(models)}
        return json_response(content | {"links": {"next": next_page(request, offset + limit, limit, len(models))}})

    async def count_models(self, request: Request) -> Response:
        """Say how many models are served."""
        return json_response({"data": {"count": len(await self._services.catalogue.models())}})

    def _check_provider(self, body: dict[str, Any]) -> None:
        """Applies the `provider` field: this server is the only provider there is.

        An `order` without this server excludes it unless fallbacks are allowed in so many words.

        Raises:
            InvalidRequestError: not of the published form.
            NotFoundError: the field leaves this server out.
        """
        provider = body.get("provider")
        if provider is None:
            return
        if not isinstance(provider, dict):
            raise InvalidRequestError("provider must be an object", param="provider")
        only = read_names(provider, "only")
        order = read_names(provider, "order")
        name = self._services.settings.provider_name.lower()
        out_of_order = order and name not in order and provider.get("allow_fallbacks") is not True
        if (only and name not in only) or out_of_order:
            raise NotFoundError("no allowed providers are available for the selected model", param="provider")


def read_names(provider: dict[str, Any], field: str) -> list[str]:
    """A list of provider names in lower case; empty if it is absent.

    Raises:
        InvalidRequestError: not a list of strings.
    """
    names = provider.get(field)
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError(f"provider.{field} must be an array of strings", param=f"provider.{field}")
    return [name.lower() for name in names]


def read_count(request: Request, name: str, default: int) -> int:
    """A whole number of the query string.

    Raises:
        InvalidRequestError: something else, too long a number, or more than one.
    """
    texts = request.query_params.getlist(name)
    if not texts:
        return default
    if len(texts) > 1:
        raise InvalidRequestError(f"{name} must be given once", param=name)
    [text] = texts
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidRequestError(f"{name} must be a whole number", param=name)
    return int(text)


def next_page(request: Request, offset: int, limit: int, count: int) -> str | None:
    """The path of the next page, or None on the last one."""
    return f"{request.url.path}?offset={offset}&limit={limit}" if 0 < limit and offset < count else None


def describe_model(model: ServedModel) -> dict[str, Any]:
    """A model as OpenRouter lists it, with every field that its own SDKs require."""
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
        "links": {"details": f"/v1/metadata?model={model.public_id}"},
    }
