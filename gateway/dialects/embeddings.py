"""From an HTTP request to a result: the way that all dialects share."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.requests import Request

from gateway.body import read_json_object
from gateway.dialects.embeddings_request import parse_request
from gateway.disconnect import DisconnectWatch
from gateway.embeddings import EmbeddingsResult
from gateway.record import record_of
from gateway.services import Services

USER_HASH_CHARS = 16


BodyCheck: TypeAlias = Callable[[dict[str, Any]], None]
"""Raises what a dialect alone finds wrong with a body."""


async def embed_request(
    request: Request, services: Services, *, more_fields: frozenset[str] = frozenset(), check: BodyCheck | None = None
) -> EmbeddingsResult:
    """Answers a request, and writes into its record what becomes known on the way.

    Args:
        request: nothing of its body has been read.
        services: of the application.
        more_fields: that the dialect takes beside the common ones.
        check: what the dialect itself has to say about a body.

    Raises:
        GatewayError: the request is wrong, or could not be answered.
        ClientDisconnect: nobody waits for the answer any more.
    """
    record = record_of(request)
    services.admission.check_room()
    body = await read_json_object(request, max_bytes=services.settings.max_body_bytes)
    record.has_body = True
    parsed = parse_request(body, services.settings, more_fields)
    if check is not None:
        check(body)
    record.items = len(parsed.items)
    record.user_hash = hash_user(body.get("user"))
    record.stage_s["read"] = record.age_s()
    with DisconnectWatch(request):
        result = await services.embedder.embed(parsed, record.deadline)
    record.model = result.model.public_id
    record.result = result
    record.stage_s.update(result.stage_s)
    await services.access.charge(record.caller, result.usage.total_tokens)
    return result


def hash_user(user: str | None) -> str:
    """What the log may hold of a `user` field: enough to tell users apart, or nothing where there is none."""
    return hashlib.sha256(user.encode()).hexdigest()[:USER_HASH_CHARS] if user else ""
