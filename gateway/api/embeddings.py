"""Embeddings over HTTP: from a request to the response, as all dialects share it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

import orjson
from msgspec import Meta
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from gateway.api.context import Services, context_of
from gateway.api.inputs import build_request
from gateway.api.request import EmbeddingsBody, read_embeddings_body
from gateway.core.service import EmbeddingsResult

USER_HASH_CHARS = 16

WATCH_AFTER_S = 0.05
"""Shorter work is not worth a task that watches the connection: what Triton has begun, it finishes anyway."""

Count = Annotated[int, Meta(ge=0)]
B = TypeVar("B", bound=EmbeddingsBody)


@dataclass(slots=True)
class Embedding:
    """The vector of one item."""

    object: Literal["embedding"]
    index: Annotated[int, Meta(ge=0, description="Position of the item in the request.")]
    embedding: Annotated[list[float] | str, Meta(description="Numbers, or base64.")]


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
class EmbeddingsResponse:
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: Annotated[str, Meta(description="Public id of the model.")]
    usage: Usage


async def embed_request(
    request: Request, services: Services, body_type: type[B], check: Callable[[B], Awaitable[None]] | None = None
) -> EmbeddingsResult:
    """Serve an embeddings request, and note in its context what becomes known on the way.

    Args:
        request: Its body has not been read.
        services: Of the application.
        body_type: The dialect's body.
        check: Raises what the dialect itself finds wrong with a body.

    Raises:
        GatewayError: The request is invalid, or could not be served.
        ClientDisconnect: The client has closed the connection.
    """
    context = context_of(request)
    services.admission.check_room()
    body = await read_embeddings_body(request, body_type, max_bytes=services.settings.max_body_bytes)
    context.body_is_read = True
    if check is not None:
        await check(body)
    parsed = build_request(body, services.settings)
    context.items = len(parsed.items)
    context.user_hash = hash_user(body.user)
    context.stage_s["read"] = context.age_s()
    with DisconnectWatch(request):
        result = await services.embedding.embed(parsed, context.deadline)
    context.model = result.model.public_id
    context.result = result
    context.stage_s.update(result.stage_s)
    await services.access.charge(context.caller, result.usage.total_tokens)
    return result


def hash_user(user: str | None) -> str:
    """Return what the log may hold of a `user` field: enough to tell users apart."""
    return hashlib.sha256(user.encode()).hexdigest()[:USER_HASH_CHARS] if user else ""


def build_response(result: EmbeddingsResult) -> EmbeddingsResponse:
    """Return the response body, with NumPy vectors still in it."""
    usage = result.usage
    return EmbeddingsResponse(
        object="list",
        data=[Embedding("embedding", index, vector) for index, vector in enumerate(result.vectors)],
        model=result.model.public_id,
        usage=Usage(
            prompt_tokens=usage.total_tokens,
            total_tokens=usage.total_tokens,
            prompt_tokens_details=TokenDetails(usage.text_tokens, usage.image_tokens),
        ),
    )


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
