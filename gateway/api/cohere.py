"""Cohere's API: `/v2/embed` and `/v1/embed`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Dialect, Services, context_of
from gateway.api.embeddings import Count, embed, json_response, receive_body
from gateway.api.inputs import build_request
from gateway.api.middleware import DialectRoute
from gateway.api.openapi import EMBEDDING, content_of, json_body, json_responses
from gateway.api.request import Body, ContentBlock, EmbeddingsBody, ImagePart, ImageSource
from gateway.errors import InvalidItemError, InvalidRequestError
from gateway.settings import Settings
from gateway.types import (
    DocumentItem,
    EmbeddingsRequest,
    EmbeddingType,
    InputType,
    ItemWithImage,
    PromptName,
    TokenLimit,
    Truncate,
    VectorFormat,
)

DIALECT = Dialect("cohere", "Cohere")

OutputType: TypeAlias = EmbeddingType | Literal["base64"]

INPUT_TYPES: Mapping[str, InputType] = {
    "search_query": "query",
    "search_document": "passage",
    "classification": "passage",
    "clustering": "passage",
    "image": "passage",
    "query": "query",
    "passage": "passage",
    "document": "passage",
}
"""Cohere's own names, and those of models' prompts, which vLLM takes."""

TASKS = ("classification", "clustering")
"""Names that may be those of prompts of the model."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "texts": {
        "summary": "Texts, in two types",
        "value": {
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "input_type": "search_document",
            "texts": ["The cat sat on the mat", "Dogs are loyal companions"],
            "embedding_types": ["float", "int8"],
        },
    },
}


class CohereBody(Body, kw_only=True):
    """What to embed, and how to respond, as Cohere's clients send it."""

    model: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Id of a served model; `GATEWAY_DEFAULT_MODEL` if absent."),
    ] = None
    texts: Annotated[list[str] | None, Meta(description="Texts; one of the three kinds of input.")] = None
    images: Annotated[
        list[str] | None, Meta(description="Images as data URLs, or as http(s) URLs if the server fetches them.")
    ] = None
    inputs: Annotated[
        list[ContentBlock] | None, Meta(description="Texts, images, and texts with an image, in any mixture.")
    ] = None
    input_type: Annotated[
        Literal[
            "search_query", "search_document", "classification", "clustering", "image", "query", "passage", "document"
        ]
        | None,
        Meta(
            description="Whether texts are queries or documents; all but `search_query` and `query` are documents. "
            "`classification` and `clustering` use the model's prompt of that name if it has one."
        ),
    ] = None
    embedding_types: Annotated[
        list[OutputType] | None,
        Meta(description="Types of the vectors, `float` if absent; `base64` encodes little-endian float32."),
    ] = None
    output_dimension: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Size of the vectors, normalised again.")
    ] = None
    truncate: Annotated[
        Truncate | None, Meta(description="Which end of a text above the model's limit is cut; `END` if absent.")
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="No lower than the model's limit, which applies.")
    ] = None
    priority: Annotated[Literal[0] | None, Meta(description="Only 0: requests are equal.")] = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "model": "model must be a string that is not empty",
        "texts": "texts must be an array of strings",
        "images": "images must be an array of strings",
        "input_type": "input_type must be one of " + ", ".join(f"'{name}'" for name in INPUT_TYPES),
        "embedding_types": "embedding_types must be an array of 'float', 'int8', 'uint8', 'binary', 'ubinary' or "
        "'base64'",
        "output_dimension": "output_dimension must be a positive integer",
        "max_tokens": "max_tokens must be a positive integer",
        "priority": "priority must be 0",
    }


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """The version of Cohere's API."""

    version: Literal["1", "2"]


@dataclass(frozen=True, slots=True)
class BilledUnits:
    """What the request consumed."""

    input_tokens: Annotated[int, Meta(ge=0, description="Text tokens; special and prefix tokens included.")]
    image_tokens: Count
    images: Count


@dataclass(frozen=True, slots=True)
class ResponseMeta:
    """About the response."""

    api_version: ApiVersion
    billed_units: BilledUnits


@dataclass(frozen=True, slots=True)
class CohereResponse:
    """The vectors by type, each in the order of the input."""

    response_type: Literal["embeddings_by_type"]
    id: Annotated[str, Meta(description="The request id.")]
    embeddings: dict[str, list[list[float] | str]]
    texts: Annotated[list[str], Meta(description="The texts of the request.")]
    meta: ResponseMeta


@dataclass(frozen=True, slots=True)
class CohereFloatsResponse:
    """The vectors in the order of the input: the response of `/v1/embed` to a request without `embedding_types`."""

    response_type: Literal["embeddings_floats"]
    id: Annotated[str, Meta(description="The request id.")]
    embeddings: list[list[float]]
    texts: Annotated[list[str], Meta(description="The texts of the request.")]
    meta: ResponseMeta


class Cohere:
    """Handlers of the dialect's routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of the dialect."""
        route = partial(
            DialectRoute,
            dialect=DIALECT,
            access=self._services.access,
            methods=["POST"],
            openapi_extra=json_body(CohereBody, examples=EXAMPLES),
        )
        return [
            route("/v2/embed", self.embed_v2, responses=json_responses(DIALECT, CohereResponse, *EMBEDDING)),
            route(
                "/v1/embed",
                self.embed_v1,
                responses=json_responses(DIALECT, CohereFloatsResponse, *EMBEDDING)
                | {200: {"description": "Success.", "content": content_of(CohereFloatsResponse, CohereResponse)}},
            ),
        ]

    async def embed_v2(self, request: Request) -> Response:
        """Generate embeddings in several types at once."""
        return await self._embed(request, "2")

    async def embed_v1(self, request: Request) -> Response:
        """Generate embeddings; a list of vectors if the request has no `embedding_types`."""
        return await self._embed(request, "1")

    async def _embed(self, request: Request, version: Literal["1", "2"]) -> Response:
        body = await receive_body(request, self._services, CohereBody)
        embeddings_request = build_cohere_request(body, self._services.settings)
        result = await embed(request, self._services, embeddings_request)
        images = sum(isinstance(item, ItemWithImage) for item in embeddings_request.items)
        units = BilledUnits(result.usage.text_tokens, result.usage.image_tokens, images)
        meta = ResponseMeta(ApiVersion(version), units)
        response_id, texts = context_of(request).request_id, body.texts or []
        if version == "1" and not body.embedding_types:
            return json_response(CohereFloatsResponse("embeddings_floats", response_id, result.vectors, texts, meta))
        by_type = dict(zip(list_output_types(body), result.outputs, strict=True))
        return json_response(CohereResponse("embeddings_by_type", response_id, by_type, texts, meta))


def build_cohere_request(body: CohereBody, settings: Settings) -> EmbeddingsRequest:
    """Return the request that a body makes.

    Raises:
        InvalidRequestError: There is not exactly one kind of input, an item is a PDF, or what `build_request` finds.
    """
    given = [value for value in (body.texts, body.images, body.inputs) if value is not None]
    if len(given) != 1:
        raise InvalidRequestError("exactly one of texts, images and inputs is required")
    plain = EmbeddingsBody(
        model=body.model or settings.default_model,
        input=read_images(body.images) if body.images is not None else list(given[0]),
        input_type=INPUT_TYPES[body.input_type] if body.input_type else None,
        modality="text" if body.texts is not None else None,
        truncate=body.truncate or "END",
    )
    request = build_request(plain, settings)
    for index, item in enumerate(request.items):
        if isinstance(item, DocumentItem):  # the response has no place for several vectors of one input
            raise InvalidItemError(index, "is a PDF, which only /v1/embeddings and /api/v1/embeddings accept")
    return replace(
        request,
        input_type=None if body.input_type in TASKS else request.input_type,
        prompt=PromptName(body.input_type, is_required=False) if body.input_type in TASKS else None,
        formats=[
            VectorFormat(body.output_dimension, "float", "base64")
            if output_type == "base64"
            else VectorFormat(body.output_dimension, output_type)
            for output_type in list_output_types(body)
        ],
        token_limit=TokenLimit("max_tokens", body.max_tokens) if body.max_tokens else None,
    )


def read_images(urls: list[str]) -> list[Any]:
    """Return images as content blocks, in which a string is an image or refused, never a text."""
    return [ContentBlock([ImagePart(ImageSource(url))]) for url in urls]


def list_output_types(body: CohereBody) -> list[OutputType]:
    """Return the requested types, each once."""
    return list(dict.fromkeys(body.embedding_types or ["float"]))
