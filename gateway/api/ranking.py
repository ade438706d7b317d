"""Ranking over HTTP: from a query and documents to scores, as all dialects share it."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta, Struct
from starlette.requests import Request

from gateway.api.context import Services
from gateway.api.embeddings import Count, infer
from gateway.api.error_responses import ErrorDetails, describe_error
from gateway.api.images import is_pdf_url
from gateway.api.inputs import build_item, check_image_count, check_item_count, or_failed
from gateway.api.request import ContentBlock, ImagePart, ImageSource, TextPart
from gateway.core.results import RankingResult
from gateway.errors import GatewayError, InvalidItemError
from gateway.settings import Settings
from gateway.types import FailedItem, RankingRequest, RequestItem, TextItem, TokenLimit, Truncate

INPUT = re.compile(r"input(?=\[| must|$)")
"""How errors begin that the core, and parsers of images, report about an item or about all."""

Query = Annotated[str, Meta(description="A text that is not blank; it is never cut.")]
PositiveCount = Annotated[int, Meta(ge=1)]
OnError: TypeAlias = Annotated[
    Literal["request", "item"] | None,
    Meta(
        description="An extension. `item`: documents that fail are listed in `errors`, and the others are ranked. "
        "`request`, or absent: one that fails fails the request."
    ),
]

NOT_A_COUNT = "{field} must be a positive integer"


class Document(Struct, forbid_unknown_fields=True):
    """A text, an image, or both together."""

    text: Annotated[str | None, Meta(description="The text.")] = None
    image: Annotated[str | None, Meta(description="A data URL, or an http(s) URL if the server fetches them.")] = None


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be ranked."""

    index: Annotated[int, Meta(ge=0, description="Position of the document in the request.")]
    error: ErrorDetails


class ResponseWithErrors(TypedDict):
    """What every response to a ranking may have."""

    errors: NotRequired[
        Annotated[list[FailedDocument], Meta(description="With `on_error: item`, if documents have failed.")]
    ]


@dataclass(frozen=True, slots=True)
class RankingUsage:
    """Tokens that reached the model; those of the query count for each document."""

    prompt_tokens: Count
    total_tokens: Count


async def rank(
    request: Request,
    services: Services,
    documents: Sequence[Document],
    *,
    field: str,
    model: str,
    query: str,
    truncate: Truncate,
    on_error: OnError = None,
    token_limit: TokenLimit | None = None,
    user: str | None = None,
) -> RankingResult:
    """Score the documents of a request.

    Args:
        request: Its body has been read.
        services: Of the application.
        documents: As parsed.
        field: What the dialect calls them, for the errors.
        model: As the client wrote it; empty for the only model that ranks.
        query: What the documents are ranked by.
        truncate: Which end of an over-long document is cut; `NONE` refuses it.
        on_error: Whether a document that fails leaves the others ranked.
        token_limit: That the client sets, or None.
        user: As the client wrote it, or None.

    Raises:
        GatewayError: The request is invalid, or could not be served.
        ClientDisconnect: The client has closed the connection.
    """
    with documents_named(field):
        ranking_request = RankingRequest(
            model=model,
            query=query,
            items=build_documents(documents, services.settings, isolate_errors=on_error == "item"),
            truncate=truncate,
            isolate_errors=on_error == "item",
            token_limit=token_limit,
            user=user,
        )
        result = await infer(request, services, ranking_request, services.inference.rank)
    for error in result.errors.values():
        name_documents(error, field)
    return result


@contextmanager
def documents_named(field: str) -> Iterator[None]:
    """Make errors speak of the field that the client sent, such as `documents[3]`; elsewhere, it is `input[3]`."""
    try:
        yield
    except GatewayError as error:
        name_documents(error, field)
        raise


def name_documents(error: GatewayError, field: str) -> None:
    """Make an error speak of the field that the client sent."""
    if error.param and INPUT.match(error.param):
        error.param = INPUT.sub(field, error.param, count=1)
        error.message = INPUT.sub(field, error.message, count=1)


def build_documents(
    documents: Sequence[Document], settings: Settings, *, isolate_errors: bool
) -> list[RequestItem | FailedItem]:
    """Return the items that documents make.

    Args:
        documents: As parsed; a text is never read as an image.
        settings: Limits of documents, images and image bytes.
        isolate_errors: Whether to return what is wrong with a document in its place.

    Raises:
        InvalidRequestError: There are none, or too many documents or images; or what `build_document` finds.
    """
    check_item_count(len(documents), settings.max_items)
    build = or_failed(build_document) if isolate_errors else build_document
    items = [build(index, document, settings.max_image_bytes) for index, document in enumerate(documents)]
    check_image_count(items, settings.max_images)
    return items


def build_document(index: int, document: Document, max_bytes: int) -> RequestItem:
    """Return the item of one document.

    Raises:
        InvalidItemError: It is blank, or its image is malformed.
        TooLargeError: Its file is above the limit.
    """
    text = document.text if document.text and not document.text.isspace() else ""
    if not document.image:
        if not text:
            raise InvalidItemError(index, "must not be blank or empty")
        return TextItem(text)
    if text and is_pdf_url(document.image):
        raise InvalidItemError(index, "has text beside a PDF, which is ranked alone")
    parts = [TextPart(text)] if text else []
    return build_item(index, ContentBlock([*parts, ImagePart(ImageSource(document.image))]), None, max_bytes)


def list_best(result: RankingResult, top_n: int | None = None) -> list[tuple[int, float]]:
    """Return the index and score of the documents, the most relevant first; those of equal scores keep their order.

    Args:
        result: Documents that failed are left out.
        top_n: Most documents; None for all.
    """
    scores = result.scores.tolist()
    ranked = [index for index in range(len(scores)) if index not in result.errors]
    best = sorted(ranked, key=lambda index: -scores[index])
    return [(index, scores[index]) for index in best[:top_n]]


def add_errors(response: ResponseWithErrors, result: RankingResult) -> None:
    """List the documents that failed in a response, if there are any."""
    if result.errors:
        errors = sorted(result.errors.items())
        response["errors"] = [FailedDocument(index, describe_error(error)) for index, error in errors]


def to_relevance(score: float) -> float:
    """Return the sigmoid of a score: from 0 to 1."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))
