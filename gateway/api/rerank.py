"""The rerank APIs of Cohere (`/v2/rerank`, `/v1/rerank`), Jina AI (`/v1/rerank`) and OpenRouter (`/api/v1/rerank`).

Each of them cuts long documents at the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import UNSET, Meta
from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api import cohere, openrouter
from gateway.api.context import Services, context_of
from gateway.api.embeddings import Count, json_response, receive_body
from gateway.api.middleware import DialectRoute
from gateway.api.openapi import EMBEDDING, json_body, json_responses
from gateway.api.provider_preferences import ProviderPreferences
from gateway.api.ranking import (
    NOT_A_COUNT,
    Document,
    OnError,
    PositiveCount,
    Query,
    RankingUsage,
    ResponseWithErrors,
    add_errors,
    list_best,
    rank,
    to_relevance,
)
from gateway.api.request import Body
from gateway.core.results import RankingResult
from gateway.types import TokenLimit

DOCUMENTS_PER_SEARCH_UNIT = 100
"""As Cohere bills them."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "texts": {
        "summary": "Texts, of which the most relevant are returned",
        "value": {
            "model": "cross-encoder/ms-marco-MiniLM-L6-v2",
            "query": "Which animal is loyal?",
            "documents": ["Cats sleep all day", "Dogs are loyal companions", "Fish swim"],
            "top_n": 2,
        },
    },
}


class RerankBody(Body, kw_only=True):
    """What to rank, as clients of Cohere and Jina AI send it."""

    model: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Id of a served model that ranks; if absent, the only one."),
    ] = None
    query: Query
    documents: Annotated[
        list[str | dict[str, str]],
        Meta(
            description="Texts; or objects with a `text`, an `image`, which is a data URL or an http(s) URL if the "
            "server fetches them, or both. A string is never read as an image."
        ),
    ]
    top_n: Annotated[PositiveCount | None, Meta(description="Most documents to return; all if absent.")] = None
    return_documents: Annotated[bool | None, Meta(description="Whether to return documents, as they came.")] = None
    rank_fields: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(description="Fields of the documents, in order, that are their text in place of `text`."),
    ] = None
    max_tokens_per_doc: Annotated[
        PositiveCount | None, Meta(description="No lower than the model's limit, which applies.")
    ] = None
    max_chunks_per_doc: Annotated[
        PositiveCount | None,
        Meta(description="Without effect: a document is one chunk, and cut if it is longer."),
    ] = None
    priority: Annotated[Literal[0] | None, Meta(description="Only 0: requests are equal.")] = None
    on_error: OnError = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "model": "model must be a string that is not empty",
        "query": "query must be a string",
        "documents": "documents must be an array of strings, and of objects whose values are strings",
        "top_n": NOT_A_COUNT.format(field="top_n"),
        "return_documents": "return_documents must be a boolean",
        "rank_fields": "rank_fields must be an array of strings that is not empty",
        "max_tokens_per_doc": NOT_A_COUNT.format(field="max_tokens_per_doc"),
        "max_chunks_per_doc": NOT_A_COUNT.format(field="max_chunks_per_doc"),
        "priority": "priority must be 0",
    }


AnyDocument: TypeAlias = str | dict[str, str] | Document


class OpenRouterRerankBody(Body, kw_only=True):
    """What to rank, as OpenRouter's clients send it."""

    model: Annotated[str, Meta(min_length=1, description="Id of a served model that ranks.")]
    query: Query
    documents: Annotated[
        list[str | Document], Meta(description="Texts, images, and texts with an image, in any mixture.")
    ]
    top_n: Annotated[PositiveCount | None, Meta(description="Most documents to return; all if absent.")] = None
    provider: Annotated[ProviderPreferences | None, Meta(description="Which providers may respond.")] = None
    user: Annotated[str | None, Meta(description="Any string; only its hash is logged.")] = None
    on_error: OnError = None
    session_id: openrouter.Ignored = UNSET
    trace: openrouter.Ignored = UNSET

    field_messages: ClassVar[Mapping[str, str]] = {
        "query": RerankBody.field_messages["query"],
        "documents": 'documents must be an array of strings and objects with "text", "image" or both',
        "top_n": RerankBody.field_messages["top_n"],
    }


class Result(TypedDict):
    """A document and its relevance."""

    index: Annotated[int, Meta(ge=0, description="Position of the document in the request.")]
    relevance_score: Annotated[float, Meta(ge=0, le=1, description="Sigmoid of the model's score.")]
    document: NotRequired[Annotated[dict[str, str], Meta(description="As it came; a string is its `text`.")]]


@dataclass(frozen=True, slots=True)
class RerankUnits:
    """What the request consumed."""

    search_units: Annotated[int, Meta(ge=1, description="One for each 100 documents, begun or full.")]
    input_tokens: Annotated[int, Meta(ge=0, description="Text tokens; those of the query count for each document.")]
    image_tokens: Count


@dataclass(frozen=True, slots=True)
class RerankMeta:
    """About the response."""

    api_version: cohere.ApiVersion
    billed_units: RerankUnits


class RerankResponse(ResponseWithErrors):
    """The documents, the most relevant first; `meta` is what Cohere's clients read, `usage` what Jina AI's do."""

    id: Annotated[str, Meta(description="The request id.")]
    model: Annotated[str, Meta(description="Public id of the model.")]
    results: list[Result]
    meta: RerankMeta
    usage: RankingUsage


@dataclass(frozen=True, slots=True)
class OpenRouterRerankUsage:
    """Tokens and their price."""

    total_tokens: Count
    cost: Annotated[float, Meta(description="Always 0.")]


class OpenRouterRerankResponse(ResponseWithErrors):
    """The documents, the most relevant first."""

    id: Annotated[str, Meta(description="Id of the response; ends with the request id.")]
    model: Annotated[str, Meta(description="Public id of the model.")]
    provider: Annotated[str, Meta(description="Name of this server.")]
    results: list[Result]
    usage: OpenRouterRerankUsage


class Rerank:
    """Handlers of these routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of this module."""
        route = partial(DialectRoute, access=self._services.access, methods=["POST"])
        cohere_route = partial(
            route,
            dialect=cohere.DIALECT,
            responses=json_responses(cohere.DIALECT, RerankResponse, *EMBEDDING),
            openapi_extra=json_body(RerankBody, examples=EXAMPLES),
        )
        return [
            cohere_route("/v2/rerank", self.rerank_v2),
            cohere_route("/v1/rerank", self.rerank_v1),
            route(
                "/api/v1/rerank",
                self.rerank_openrouter,
                dialect=openrouter.DIALECT,
                responses=json_responses(openrouter.DIALECT, OpenRouterRerankResponse, *EMBEDDING),
                openapi_extra=json_body(OpenRouterRerankBody, examples=EXAMPLES),
            ),
        ]

    async def rerank_v2(self, request: Request) -> Response:
        """Order documents by their relevance to a query."""
        return await self._rerank(request, "2")

    async def rerank_v1(self, request: Request) -> Response:
        """Order documents by their relevance to a query; also Jina AI's route."""
        return await self._rerank(request, "1")

    async def rerank_openrouter(self, request: Request) -> Response:
        """Order documents by their relevance to a query."""
        body = await receive_body(request, self._services, OpenRouterRerankBody)
        await openrouter.check_preferences(self._services, body.provider, body.model, has_ignored_parameter=False)
        result = await rank(
            request,
            self._services,
            [read_document(document) for document in body.documents],
            field="documents",
            model=body.model,
            query=body.query,
            truncate="END",
            on_error=body.on_error,
            user=body.user,
        )
        response = OpenRouterRerankResponse(
            id=f"gen-rerank-{context_of(request).request_id}",
            model=result.model.public_id,
            provider=self._services.settings.provider_name,
            results=list_results(result, body.top_n, body.documents),
            usage=OpenRouterRerankUsage(result.usage.total_tokens, 0),
        )
        add_errors(response, result)
        return json_response(response)

    async def _rerank(self, request: Request, version: Literal["1", "2"]) -> Response:
        body = await receive_body(request, self._services, RerankBody)
        limit = TokenLimit("max_tokens_per_doc", body.max_tokens_per_doc) if body.max_tokens_per_doc else None
        result = await rank(
            request,
            self._services,
            [read_document(document, body.rank_fields) for document in body.documents],
            field="documents",
            model=body.model or "",
            query=body.query,
            truncate="END",
            on_error=body.on_error,
            token_limit=limit,
        )
        usage = result.usage
        units = RerankUnits(
            math.ceil(len(body.documents) / DOCUMENTS_PER_SEARCH_UNIT), usage.text_tokens, usage.image_tokens
        )
        response = RerankResponse(
            id=context_of(request).request_id,
            model=result.model.public_id,
            results=list_results(result, body.top_n, body.documents if body.return_documents else None),
            meta=RerankMeta(cohere.ApiVersion(version), units),
            usage=RankingUsage(usage.total_tokens, usage.total_tokens),
        )
        add_errors(response, result)
        return json_response(response)


def read_document(document: AnyDocument, rank_fields: Sequence[str] | None = None) -> Document:
    """Return a document in the form that all dialects share."""
    if isinstance(document, str):
        return Document(document)
    if isinstance(document, Document):
        return document
    texts = [document[name] for name in rank_fields or ("text",) if name in document]
    return Document("\n".join(texts), document.get("image"))


def list_results(result: RankingResult, top_n: int | None, documents: Sequence[AnyDocument] | None) -> list[Result]:
    """Return the most relevant documents, and their contents if `documents` has them."""
    results: list[Result] = []
    for index, score in list_best(result, top_n):
        entry: Result = {"index": index, "relevance_score": to_relevance(score)}
        if documents is not None:
            entry["document"] = describe_document(documents[index])
        results.append(entry)
    return results


def describe_document(document: AnyDocument) -> dict[str, str]:
    """Return a document as an object."""
    if isinstance(document, str):
        return {"text": document}
    if isinstance(document, Document):
        return {name: value for name, value in asdict(document).items() if value is not None}
    return document
