"""Embeddings over HTTP: from a request to the response, as all dialects share it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

import orjson
from msgspec import Meta
from msgspec.structs import replace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from gateway.access import ANONYMOUS
from gateway.access.limits import group_address
from gateway.api.body import read_embeddings_body
from gateway.api.context import Refusal, Services, context_of
from gateway.api.error_responses import ErrorDetails, describe_error
from gateway.api.inputs import build_request
from gateway.api.request import Body, EmbeddingsBody
from gateway.core.checks import FINGERPRINT_HEADER
from gateway.core.results import EmbeddingsResult, InferenceResult, Truncation
from gateway.core.work import Effort
from gateway.errors import InvalidRequestError, OverloadedError, TooLargeError
from gateway.types import Client, Deadline, EmbeddingsRequest, InferenceRequest, Place, TextItem

USER_HASH_CHARS = 16

WATCH_AFTER_S = 0.05
"""Shorter work is not worth a task that watches the connection: what Triton has begun, it finishes anyway."""

Count = Annotated[int, Meta(ge=0)]
B = TypeVar("B", bound=Body)
E = TypeVar("E", bound=EmbeddingsBody)
Q = TypeVar("Q", bound=InferenceRequest)
R = TypeVar("R", bound=InferenceResult)


@dataclass(slots=True)
class Embedding:
    """The vector of one item."""

    object: Literal["embedding"]
    index: Annotated[int, Meta(ge=0, description="Position of the item in the request.")]
    embedding: Annotated[
        list[float] | str | None,
        Meta(description="Numbers, or base64; null for an item that failed, which has an `error` instead."),
    ]


@dataclass(slots=True)
class FailedEmbedding(Embedding):
    """An item that failed, in a request with `on_error: item`."""

    error: ErrorDetails


@dataclass(slots=True)
class TokenDetails:
    """Tokens by what they stand for."""

    text_tokens: Count
    image_tokens: Count


@dataclass(slots=True)
class Usage:
    """Tokens that reached the model; special, prefix and image tokens included."""

    prompt_tokens: Count
    total_tokens: Count
    prompt_tokens_details: TokenDetails


@dataclass(slots=True)
class UsageWithTruncation(Usage):
    """Tokens, and what was cut; only in responses to which that applies."""

    truncated: Annotated[Sequence[Truncation], Meta(description="The items that were cut.")]


@dataclass(slots=True)
class EmbeddingsResponse:
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: Annotated[str, Meta(description="Public id of the model.")]
    usage: Usage


async def embed_request(
    request: Request, services: Services, body_type: type[E], check: Callable[[E], Awaitable[None]] | None = None
) -> EmbeddingsResult:
    """Serve an embeddings request in the format that the OpenAI, NIM and OpenRouter dialects share.

    Args:
        request: Its body has not been read.
        services: Of the application.
        body_type: The dialect's body.
        check: Raises what the dialect itself finds wrong with a body.

    Raises:
        GatewayError: The request is invalid, or could not be served.
        ClientDisconnect: The client has closed the connection.
    """
    body = await receive_body(request, services, body_type)
    if check is not None:
        await check(body)
    return await embed(request, services, build_request(body, services.settings))


async def receive_body(
    request: Request, services: Services, body_type: type[B], extended_type: type[B] | None = None
) -> B:
    """Read and parse the body of a request for inference, unless the queues are full; see `read_embeddings_body`."""
    services.admission.check_room(client_of(request))
    max_bytes = services.settings.max_body_bytes
    body = await read_embeddings_body(request, body_type, max_bytes=max_bytes, extended_kind=extended_type)
    context_of(request).body_is_read = True
    return body


async def embed(request: Request, services: Services, embeddings_request: EmbeddingsRequest) -> EmbeddingsResult:
    """Embed the items of a request; arguments and errors as those of `infer`."""
    if services.settings.image_queries and context_of(request).dialect.allows_image_queries:
        embeddings_request = replace(embeddings_request, image_queries=True)
    return await infer(request, services, embeddings_request, services.inference.embed)


async def infer(
    request: Request,
    services: Services,
    inference_request: Q,
    run: Callable[[Q, Deadline, Client, Effort], Awaitable[R]],
) -> R:
    """Have the service answer a request, and note in its context what becomes known on the way.

    A request that made the engine work in vain is charged the estimate of its tokens: one with a bad item, one whose
    client left, or one that took too long. Faults of the engine cost nothing.

    Args:
        request: Its body has been read.
        services: Of the application.
        inference_request: What the body asks for.
        run: The service's method for it.

    Raises:
        GatewayError: The request is invalid, or could not be served.
        ClientDisconnect: The client has closed the connection.
    """
    context = context_of(request)
    context.items = len(inference_request.items)
    context.user_hash = hash_user(inference_request.user)
    context.stage_s["read"] = context.age_s()
    if fingerprint := read_fingerprint(request):
        inference_request = replace(inference_request, fingerprint=fingerprint)
    effort = Effort()
    try:
        with DisconnectWatch(request):
            result = await run(inference_request, context.deadline, client_of(request), effort)
    except (InvalidRequestError, TooLargeError, ClientDisconnect, asyncio.CancelledError):
        if effort.tokens:
            await services.access.charge(context.caller, effort.tokens)
        raise
    except OverloadedError as error:
        if context.items == 1 and isinstance(inference_request.items[0], TextItem):
            request.state.refusal = Refusal(error, inference_request.model, context.route, context.dialect)
        raise
    context.model = result.model.public_id
    context.result = result
    context.stage_s.update(result.stage_s)
    await services.access.charge(context.caller, result.usage.total_tokens)
    return result


def client_of(request: Request) -> Client:
    """Return whose share of the engine a request counts against: that of its key, or of its address or network."""
    caller = context_of(request).caller
    if caller is not ANONYMOUS:
        return Client(caller.name, caller.weight)
    address = request.scope.get("client")
    return Client(group_address(address[0]) if address else "")


def read_fingerprint(request: Request) -> str | None:
    """Return the fingerprint of the embedding space that the client expects, or None."""
    name = FINGERPRINT_HEADER.encode()
    return next((value.decode("latin-1") for key, value in request.scope["headers"] if key == name), None)


def hash_user(user: str | None) -> str:
    """Return what the log may hold of a `user` field: enough to tell users apart."""
    return hashlib.sha256(user.encode()).hexdigest()[:USER_HASH_CHARS] if user else ""


def build_response(result: EmbeddingsResult) -> EmbeddingsResponse:
    """Return the response body, with NumPy vectors still in it."""
    total = result.usage.total_tokens
    details = TokenDetails(result.usage.text_tokens, result.usage.image_tokens)
    usage = Usage(total, total, details)
    if result.truncations:
        usage = UsageWithTruncation(total, total, details, result.truncations)
    if result.places is None and len(result.outputs) == 1:
        data = [Embedding("embedding", index, vector) for index, vector in enumerate(result.outputs[0])]
    else:
        data = list_entries(result)
    return EmbeddingsResponse("list", data, result.model.public_id, usage)


def list_entries(result: EmbeddingsResult) -> list[Any]:
    """Return an entry per vector, sorted by item, part, page and output, and one per item that failed."""
    places = result.places if result.places is not None else [Place(index) for index in range(len(result.vectors))]
    entries: list[Any] = []
    for row, place in enumerate(places):
        if place.index in result.errors:
            error = describe_error(result.errors[place.index])
            entries.append(FailedEmbedding("embedding", place.index, None, error))
            continue
        for number, vectors in enumerate(result.outputs):
            entry = {"object": "embedding", "index": place.index, "embedding": vectors[row]}
            if place.part is not None:
                entry["part"] = place.part
            if place.page is not None:
                entry["page"] = place.page
            if len(result.outputs) > 1:
                entry["output"] = number
            entries.append(entry)
    return entries


def json_response(content: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response of dataclasses or plain values; vectors are written directly from their arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status_code, headers, media_type="application/json")


class DisconnectWatch:
    """Cancels the work inside soon after the client closes the connection; a context manager.

    Args:
        request: Its body has been read to the end, so that only a disconnect is left to receive.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._watch: asyncio.Task[Message] | None = None
        self._disconnected = False

    def __enter__(self) -> None:
        """Set the timer."""
        self._work = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start_watch)

    def _start_watch(self) -> None:
        self._watch = asyncio.ensure_future(self._request.receive())
        self._watch.add_done_callback(self._cancel_work)

    def _cancel_work(self, watch: "asyncio.Task[Message]") -> None:
        if self._work is not None and not watch.cancelled():
            self._disconnected = True
            self._work.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch.

        Raises:
            ClientDisconnect: The client disconnected, and the work was cancelled.
        """
        self._timer.cancel()
        if self._watch is not None:
            self._watch.remove_done_callback(self._cancel_work)
            self._watch.cancel()
        if self._disconnected and kind is asyncio.CancelledError:
            raise ClientDisconnect from None
