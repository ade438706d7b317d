"""The API of Hugging Face's Text Embeddings Inference (TEI): `/embed`, which is also `/`, and `/info`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Dialect, Services
from gateway.api.embeddings import embed, json_response, receive_body
from gateway.api.inputs import build_request
from gateway.api.middleware import DialectRoute
from gateway.api.nim_metadata import read_query_parameter
from gateway.api.openapi import (
    CALLING_ENGINE,
    EMBEDDING,
    array_of,
    error_responses,
    json_body,
    json_responses,
    query_parameters,
)
from gateway.api.ranking import (
    NOT_A_COUNT,
    Document,
    PositiveCount,
    Query,
    list_best,
    rank,
    to_relevance,
)
from gateway.api.request import Body, EmbeddingsBody, Text, TokenId, TokenIds
from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.settings import Settings
from gateway.types import EmbeddingsRequest, Truncate
from gateway.version import package_version

DIALECT = Dialect("tei", "Text Embeddings Inference")

DTYPES: Mapping[str, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

VECTORS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}

EXAMPLES: dict[str, dict[str, Any]] = {"texts": {"summary": "Two texts", "value": {"inputs": ["a", "b"]}}}
RERANK_EXAMPLES: dict[str, dict[str, Any]] = {
    "texts": {
        "summary": "Two texts",
        "value": {
            "query": "Which animal is loyal?",
            "texts": ["Cats sleep all day", "Dogs are loyal companions"],
            "return_text": True,
        },
    },
}

TruncationDirection: TypeAlias = Literal["left", "right", "Left", "Right"]

TRUNCATE = "Whether a text above the model's limit is cut."
TRUNCATION_DIRECTION = "Which end is cut; `right` if absent."


class TeiBody(Body, kw_only=True):
    """What to embed, as clients of TEI send it."""

    inputs: Annotated[
        Text | list[Text | TokenId | TokenIds],
        Meta(description="A text, an array of texts, the token ids of one item, or an array of those of several."),
    ]
    truncate: Annotated[bool | None, Meta(description=TRUNCATE)] = None
    truncation_direction: Annotated[TruncationDirection | None, Meta(description=TRUNCATION_DIRECTION)] = None
    prompt_name: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Name of one of the model's prompts, or `query`, or `document`, which are also called "
            "`passage`; those if absent."
        ),
    ] = None
    normalize: Annotated[
        bool | None,
        Meta(description="Only true: every vector has unit length.", extra_json_schema={"enum": [True, None]}),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Size of the vectors, normalised again.")
    ] = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "truncate": "truncate must be a boolean",
        "truncation_direction": "truncation_direction must be 'left' or 'right'",
        "prompt_name": "prompt_name must be a string that is not empty",
        "normalize": "normalize must be true: every vector has unit length",
    }


class TeiRerankBody(Body, kw_only=True):
    """What to rank, as clients of TEI send it."""

    query: Query
    texts: Annotated[list[str], Meta(description="The texts to rank.")]
    raw_scores: Annotated[
        bool | None, Meta(description="Whether to return the model's own scores, not their sigmoid.")
    ] = None
    return_text: Annotated[bool | None, Meta(description="Whether to return the texts.")] = None
    truncate: Annotated[bool | None, Meta(description=TRUNCATE)] = None
    truncation_direction: Annotated[TruncationDirection | None, Meta(description=TRUNCATION_DIRECTION)] = None
    top_n: Annotated[PositiveCount | None, Meta(description="Most texts to return, as LiteLLM sends it.")] = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "query": "query must be a string",
        "texts": "texts must be an array of strings",
        "raw_scores": "raw_scores must be a boolean",
        "return_text": "return_text must be a boolean",
        "truncate": TeiBody.field_messages["truncate"],
        "truncation_direction": TeiBody.field_messages["truncation_direction"],
        "top_n": NOT_A_COUNT.format(field="top_n"),
    }


class Rank(TypedDict):
    """A text and its score."""

    index: Annotated[int, Meta(ge=0, description="Position of the text in the request.")]
    score: float
    text: NotRequired[str]


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What kind of embedding model it is."""

    pooling: str


@dataclass(frozen=True, slots=True)
class Reranker:
    """The labels of a model that ranks: its score is the only one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(TypedDict, total=False):
    """What the model does: it has one of these."""

    embedding: EmbeddingModel
    reranker: Reranker


@dataclass(frozen=True, slots=True)
class Info:
    """A model and its limits."""

    model_id: str
    model_sha: Annotated[str | None, Meta(description="Revision of the checkpoint.")]
    model_dtype: str
    model_type: ModelType
    max_input_length: Annotated[int, Meta(description="Tokens of an item; special and prefix tokens included.")]
    max_batch_tokens: Annotated[int, Meta(description="Estimated tokens of an inference request with several items.")]
    max_client_batch_size: Annotated[int, Meta(description="Items of a request.")]
    version: str


class TextEmbeddingsInference:
    """Handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of the dialect."""
        route = partial(DialectRoute, dialect=DIALECT, access=self._services.access)
        model = query_parameters({"type": "string"}, model="Id of a served model; GATEWAY_DEFAULT_MODEL if absent.")
        embed_route = partial(
            route,
            handler=self.embed,
            methods=["POST"],
            responses={200: {"description": "Success.", "content": {"application/json": {"schema": VECTORS}}}}
            | error_responses(DIALECT, *EMBEDDING),
            openapi_extra=json_body(TeiBody, examples=EXAMPLES) | model,
        )
        return [
            embed_route("/embed"),
            embed_route("/"),
            route(
                "/rerank",
                self.rerank,
                methods=["POST"],
                responses={200: {"description": "Success.", "content": array_of(Rank)}}
                | error_responses(DIALECT, *EMBEDDING),
                openapi_extra=json_body(TeiRerankBody, examples=RERANK_EXAMPLES)
                | query_parameters(
                    {"type": "string"}, model="Id of a served model that ranks, or none for the only one."
                ),
            ),
            route(
                "/info",
                self.show_info,
                responses=json_responses(DIALECT, Info, InvalidRequestError, NotFoundError, *CALLING_ENGINE),
                openapi_extra=model,
            ),
        ]

    async def embed(self, request: Request) -> Response:
        """Return the vectors of texts, in the order of the input."""
        body = await receive_body(request, self._services, TeiBody)
        embeddings_request = build_tei_request(body, self._name_model(request), self._services.settings)
        return json_response((await embed(request, self._services, embeddings_request)).vectors)

    async def rerank(self, request: Request) -> Response:
        """Return the texts' indices and scores, the most relevant first."""
        body = await receive_body(request, self._services, TeiRerankBody)
        result = await rank(
            request,
            self._services,
            [Document(text) for text in body.texts],
            field="texts",
            model=read_query_parameter(request, "model") or "",
            query=body.query,
            truncate=read_truncate(body) or self._services.settings.truncate,
        )
        ranks: list[Rank] = []
        for index, score in list_best(result, body.top_n):
            ranks.append({"index": index, "score": score if body.raw_scores else to_relevance(score)})
            if body.return_text:
                ranks[-1]["text"] = body.texts[index]
        return json_response(ranks)

    async def show_info(self, request: Request) -> Response:
        """Return the model and its limits."""
        settings = self._services.settings
        model = (await self._services.catalogue.resolve(self._name_model(request))).model
        revision = model.manifest.get("revision")
        info = Info(
            model_id=model.public_id,
            model_sha=str(revision) if revision else None,
            model_dtype=DTYPES.get(model.precision, model.precision),
            model_type=describe_type(model),
            max_input_length=model.max_tokens,
            max_batch_tokens=settings.chunk_tokens,
            max_client_batch_size=settings.max_items,
            version=package_version(),
        )
        return json_response(info)

    def _name_model(self, request: Request) -> str:
        """Return the name of the model, which may be empty: TEI serves a single one, so its bodies name none."""
        return read_query_parameter(request, "model") or self._services.settings.default_model


def build_tei_request(body: TeiBody, model: str, settings: Settings) -> EmbeddingsRequest:
    """Return the request that a body makes; strings are texts, data URLs or not.

    Raises:
        InvalidRequestError: What `build_request` finds, or vectors without unit length are asked for.
    """
    if body.normalize is False:
        raise InvalidRequestError(body.field_messages["normalize"], param="normalize")
    plain = EmbeddingsBody(
        model=model,
        input=list(body.inputs) if isinstance(body.inputs, list) else body.inputs,
        prompt_name=body.prompt_name,
        modality="text",
        dimensions=body.dimensions,
        truncate=read_truncate(body),
    )
    return build_request(plain, settings)


def read_truncate(body: TeiBody | TeiRerankBody) -> Truncate | None:
    """Return which end of a long text is cut; None if the body does not say."""
    if body.truncate is None:
        return None
    if not body.truncate:
        return "NONE"
    return "START" if body.truncation_direction in ("left", "Left") else "END"


def describe_type(model: ServedModel) -> ModelType:
    """Return what a model does, as TEI tells it."""
    if model.task == "rank":
        return {"reranker": Reranker({"0": "LABEL_0"}, {"LABEL_0": 0})}
    return {"embedding": EmbeddingModel(str(model.manifest.get("pooling", "")))}
