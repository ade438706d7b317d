"""The APIs of OpenAI and of NVIDIA's embedding NIM, under `/v1`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypedDict

from msgspec import Meta, Struct
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from gateway.api.compatibility import CompatibleBody, build_compatible_request
from gateway.api.context import Dialect, Services
from gateway.api.embeddings import EmbeddingsResponse, build_response, embed, json_response, receive_body
from gateway.api.middleware import DialectRoute
from gateway.api.openapi import (
    CALLING_ENGINE,
    EMBEDDING,
    content_of,
    error_responses,
    json_body,
    json_responses,
    path_parameter,
)
from gateway.api.ranking import Document, OnError, Query, RankingUsage, ResponseWithErrors, add_errors, list_best, rank
from gateway.api.request import Body, EmbeddingsBody
from gateway.core.health import ModelStatus
from gateway.engine import ServedModel
from gateway.engine.triton import read_triton_metrics
from gateway.errors import EngineUnavailableError, NotFoundError
from gateway.types import Truncate

DIALECT = Dialect("openai_nim", "OpenAI and NVIDIA NIM", allows_image_queries=False)

RANKING_EXAMPLES: dict[str, dict[str, Any]] = {
    "passages": {
        "summary": "Texts, as for the reranking NIM",
        "value": {
            "model": "cross-encoder/ms-marco-MiniLM-L6-v2",
            "query": {"text": "Which animal is loyal?"},
            "passages": [{"text": "Cats sleep all day"}, {"text": "Dogs are loyal companions"}],
            "truncate": "END",
        },
    },
}


class Model(TypedDict):
    """A served model, or an alias of one."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Meta(description="When it was exported, in Unix seconds.")]
    owned_by: str
    task: NotRequired[Annotated[Literal["rank"], Meta(description="Of a model that ranks; absent if it embeds.")]]
    root: NotRequired[Annotated[str, Meta(description="Of an alias: the public id of its model.")]]


@dataclass(frozen=True, slots=True)
class ModelList:
    """The served models, and their aliases."""

    object: Literal["list"]
    data: list[Model]


@dataclass(frozen=True, slots=True)
class Live:
    """That the process responds."""

    object: Literal["health.response"]
    message: Literal["live"]
    live: Literal[True]


class Ready(TypedDict):
    """Whether every model that could be loaded has just embedded a text correctly, and there is one."""

    object: Literal["health.response"]
    message: Literal["ready", "not ready"]
    ready: bool
    models: NotRequired[
        Annotated[
            Mapping[str, ModelStatus],
            Meta(description="Those that are not ready. One that could not be loaded leaves the others ready."),
        ]
    ]


class RankingQuery(Struct, forbid_unknown_fields=True):
    """What passages are ranked by."""

    text: Query


class RankingBody(Body, kw_only=True):
    """What to rank, as clients of the reranking NIM send it."""

    model: Annotated[str, Meta(min_length=1, description="Id of a served model that ranks.")]
    query: Annotated[RankingQuery, Meta(description="What the passages are ranked by; it is never cut.")]
    passages: Annotated[list[Document], Meta(description="Texts, images, and texts with an image, in any mixture.")]
    truncate: Annotated[
        Truncate | None, Meta(description="Which end of a passage above the model's limit is cut; `NONE` refuses it.")
    ] = None
    on_error: OnError = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "query": 'query must be an object with "text"',
        "passages": 'passages must be an array of objects with "text", "image" or both',
    }


@dataclass(frozen=True, slots=True)
class Ranking:
    """A passage and its score."""

    index: Annotated[int, Meta(ge=0, description="Position of the passage in the request.")]
    logit: Annotated[float, Meta(description="The model's own score, of any range.")]


class RankingResponse(ResponseWithErrors):
    """The passages, the most relevant first."""

    rankings: list[Ranking]
    usage: RankingUsage


class OpenAINim:
    """Handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of the dialect."""
        route = partial(DialectRoute, dialect=DIALECT, access=self._services.access)
        open_route = partial(DialectRoute, dialect=DIALECT)  # for monitoring, which has no key
        protected = self._services.settings.protect_metrics
        metrics_route = partial(
            route if protected == "all" else open_route, handler=self.show_metrics, response_class=PlainTextResponse
        )
        triton_metrics_route = open_route if protected == "none" else route
        ready_route = partial(
            open_route,
            handler=self.check_ready,
            responses=json_responses(DIALECT, Ready)
            | {503: {"content": content_of(Ready), "description": "Not ready; see Retry-After."}},
        )
        return [
            route(
                "/v1/embeddings",
                self.create_embeddings,
                methods=["POST"],
                responses=json_responses(DIALECT, EmbeddingsResponse, *EMBEDDING),
                openapi_extra=json_body(EmbeddingsBody, CompatibleBody),
            ),
            route(
                "/v1/ranking",
                self.rank,
                methods=["POST"],
                responses=json_responses(DIALECT, RankingResponse, *EMBEDDING),
                openapi_extra=json_body(RankingBody, examples=RANKING_EXAMPLES),
            ),
            route("/v1/models", self.list_models, responses=json_responses(DIALECT, ModelList, *CALLING_ENGINE)),
            route(
                "/v1/models/{model:path}",
                self.show_model,
                responses=json_responses(DIALECT, Model, NotFoundError, *CALLING_ENGINE),
                openapi_extra=path_parameter("model", "Id of a model, with or without a suffix."),
            ),
            metrics_route("/v1/metrics"),
            metrics_route("/metrics"),
            triton_metrics_route(
                "/v1/metrics/triton",
                self.show_triton_metrics,
                response_class=PlainTextResponse,
                responses=error_responses(DIALECT, EngineUnavailableError),
            ),
            open_route("/v1/health/live", self.check_live, responses=json_responses(DIALECT, Live)),
            ready_route("/v1/health/ready"),
            ready_route("/health"),  # where vLLM and TEI have it
        ]

    async def create_embeddings(self, request: Request) -> Response:
        """Generate embeddings of texts, images, or both together."""
        body = await receive_body(request, self._services, EmbeddingsBody, CompatibleBody)
        embeddings_request = build_compatible_request(body, self._services.settings)
        return json_response(build_response(await embed(request, self._services, embeddings_request)))

    async def rank(self, request: Request) -> Response:
        """Order passages by their relevance to a query."""
        body = await receive_body(request, self._services, RankingBody)
        result = await rank(
            request,
            self._services,
            body.passages,
            field="passages",
            model=body.model,
            query=body.query.text,
            truncate=body.truncate or self._services.settings.truncate,
            on_error=body.on_error,
        )
        total = result.usage.total_tokens
        response = RankingResponse(
            rankings=[Ranking(index, score) for index, score in list_best(result)], usage=RankingUsage(total, total)
        )
        add_errors(response, result)
        return json_response(response)

    async def list_models(self, request: Request) -> Response:
        """List the served models, and their aliases."""
        data = [describe_model(model) for model in (await self._services.catalogue.models()).values()]
        for alias, model in (await self._services.catalogue.aliases()).items():
            data.append(describe_model(model) | {"id": alias, "root": model.public_id})
        return json_response(ModelList("list", data))

    async def show_model(self, request: Request) -> Response:
        """Return one served model."""
        resolved = await self._services.catalogue.resolve(read_model_name(request))
        return json_response(describe_model(resolved.model))

    async def show_metrics(self, request: Request) -> Response:
        """Return this server's metrics in Prometheus' format."""
        text, content_type = self._services.metrics.render()
        return Response(text, media_type=content_type)

    async def show_triton_metrics(self, request: Request) -> Response:
        """Return Triton's metrics in Prometheus' format: queue and compute time of every step, batches, failures."""
        page = await read_triton_metrics(self._services.settings.triton_metrics_url)
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def check_live(self, request: Request) -> Response:
        """Report that this process responds."""
        return json_response(Live("health.response", "live", True))

    async def check_ready(self, request: Request) -> Response:
        """Report whether every model has just embedded a text correctly."""
        readiness = await self._services.readiness.check()
        body: Ready = {
            "object": "health.response",
            "message": "ready" if readiness.is_ready else "not ready",
            "ready": readiness.is_ready,
        }
        if problems := {name: status for name, status in readiness.models.items() if status != "ready"}:
            body["models"] = problems
        return json_response(body) if readiness.is_ready else json_response(body, 503, {"retry-after": "1"})


def read_model_name(request: Request) -> str:
    """Return the model that the path names; an empty one, which elsewhere means the default model, is none here."""
    return str(request.path_params["model"]) or "/"


def describe_model(model: ServedModel) -> Model:
    """Return a model as OpenAI lists it."""
    entry: Model = {"id": model.public_id, "object": "model", "created": model.created_s, "owned_by": model.owner}
    if model.task == "rank":
        entry["task"] = "rank"
    return entry
