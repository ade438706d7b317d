"""`POST /v1/tokenize`: what a request would cost, and what would be cut, without inference. An extension."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Services, context_of
from gateway.api.embeddings import Count, client_of, json_response, receive_body
from gateway.api.error_responses import ErrorDetails, describe_error
from gateway.api.inputs import build_request
from gateway.api.middleware import DialectRoute
from gateway.api.openai_nim import DIALECT
from gateway.api.openapi import EMBEDDING, json_body, json_responses
from gateway.api.request import EmbeddingsBody
from gateway.core.results import TokenizedRequest


@dataclass(slots=True)
class TokenizedItem:
    """The tokens and tiles of one item."""

    object: Literal["tokens"]
    index: Annotated[int, Meta(ge=0, description="Position of the item in the request.")]
    part: Annotated[int | None, Meta(description="With `combine`: position in the item's content, or null.")] = None
    page: Annotated[int | None, Meta(description="Number of the page of a PDF, from 1, or null.")] = None
    tokens: Annotated[Count, Meta(description="All that the item has; special, prefix and image tokens included.")] = 0
    kept: Annotated[Count, Meta(description="Those within the model's limit, to which `truncate` would cut it.")] = 0
    image_tokens: Count = 0
    tiles: Annotated[Count, Meta(description="Of its image, thumbnail included.")] = 0
    token_ids: Annotated[list[int], Meta(description="Ids of the tokens kept.")] = field(default_factory=list)
    error: Annotated[ErrorDetails | None, Meta(description="Why the item cannot be embedded, or null.")] = None


@dataclass(slots=True)
class TokenizeResponse:
    """The items, in the order of the input."""

    object: Literal["list"]
    data: list[TokenizedItem]
    model: Annotated[str, Meta(description="Public id of the model.")]
    max_tokens: Annotated[int, Meta(description="The model's limit.")]
    total_tokens: Annotated[Count, Meta(description="Of all items, before anything is cut.")]


class Tokenize:
    """Handler of the route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return the route."""
        route = partial(DialectRoute, dialect=DIALECT, access=self._services.access)
        return [
            route(
                "/v1/tokenize",
                self.tokenize,
                methods=["POST"],
                responses=json_responses(DIALECT, TokenizeResponse, *EMBEDDING),
                openapi_extra=json_body(EmbeddingsBody),
            )
        ]

    async def tokenize(self, request: Request) -> Response:
        """Count the tokens and tiles of an embeddings request, and what would be cut, without inference."""
        body = await receive_body(request, self._services, EmbeddingsBody)
        body.on_error = "item"  # whatever it says: counting one item does not depend on another
        parsed = build_request(body, self._services.settings)
        deadline, client = context_of(request).deadline, client_of(request)
        tokenized = await self._services.inference.tokenize(parsed, deadline, client)
        return json_response(build_response(tokenized))


def build_response(tokenized: TokenizedRequest) -> TokenizeResponse:
    """Return the response body: an entry for each item, part and page, and one for each item that failed."""
    data = [TokenizedItem("tokens", index, error=describe_error(error)) for index, error in tokenized.errors.items()]
    result = tokenized.result
    for row, place in enumerate(tokenized.places):
        if result is None or place.index in tokenized.errors:
            continue
        item = TokenizedItem("tokens", place.index, place.part, place.page)
        item.tokens = int(result.untruncated_token_counts[row])
        item.kept = int(result.token_counts[row])
        item.image_tokens = int(result.image_token_counts[row])
        item.tiles = int(result.tile_counts[row])
        item.token_ids = list(result.token_ids[row])
        data.append(item)
    data.sort(key=lambda item: item.index)  # stable: parts and pages keep their order
    total = sum(item.tokens for item in data)
    return TokenizeResponse("list", data, tokenized.model.public_id, tokenized.model.max_tokens, total)
