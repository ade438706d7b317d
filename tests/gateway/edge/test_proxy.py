"""The attacks that a proxy must withstand as the gateway itself does, through nginx and directly."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import orjson
import pytest

from bench.canary import Canary
from tests.gateway.edge.conftest import Victim
from tests.gateway.edge.test_limits import BODY, CANARY, HEAD, ask, check, connect, read_all, send_all
from tests.gateway.fake_engine import IMAGE_MODEL
from tests.service import wait_until


@pytest.fixture
def canary(front: Victim) -> Iterator[Canary]:
    with Canary(front.url, CANARY) as running:
        yield running
    check(running)


def status_of(response: bytes) -> int:
    """Return the status of an error in the documented form, or 0 if the connection was closed without a response."""
    if not response:
        return 0
    head, _, body = response.rpartition(b"\r\n\r\n")
    content = orjson.loads(body)
    status = int(content["error"]["code"])
    assert content["object"] == "error"
    assert int(head.split()[1]) == status
    return status


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (HEAD + b"X-Long: " + b"a" * 50_000_000, {431}),
        (HEAD + b"X: a\r\n" * 5_000_000, {400, 431}),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {431}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", {400}),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", {400}),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", {400}),
        (HEAD + b"Content-Length: 900000000\r\n\r\n", {413}),
        (HEAD, {0, 408}),
        (HEAD + b"Content-Length: 1000\r\n\r\nabc", {0, 408}),
        (b"", {0}),
    ],
    ids=[
        "one header", "headers", "path", "TLS", "no host", "two hosts", "encodings", "lengths", "large body",
        "half a head", "half a body", "nothing",
    ],
)  # fmt: skip
def test_malformed_and_slow_requests_end_soon(
    front: Victim, canary: Canary, request_: bytes, statuses: set[int]
) -> None:
    with connect(front) as client:
        send_all(client, request_)
        assert status_of(read_all(client)) in statuses


def test_half_open_connections_keep_out_nobody(front: Victim, canary: Canary) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(front)).sendall(HEAD)
        time.sleep(1)


def test_clients_that_do_not_read_are_dropped(front: Victim, canary: Canary) -> None:
    body = json.dumps({"model": IMAGE_MODEL.public_id, "input": ["a"] * 300}).encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(front)) for _ in range(4)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        ports = {client.getsockname()[1] for client in clients}
        wait_until(lambda: bool(front.open_ports() & ports), 30)
        wait_until(lambda: not front.open_ports() & ports, 30)


def test_unfinished_bodies_hold_little_memory(front: Victim, canary: Canary) -> None:
    gateway = front.gateway or front
    before = gateway.resident_bytes
    with ExitStack() as stack:
        for _ in range(12):
            client = stack.enter_context(connect(front))
            send_all(client, HEAD + b"Content-Length: 10000000\r\n\r\n" + b"a" * 3_000_000)
        assert gateway.resident_bytes - before < 100_000_000


def test_an_ordinary_request_is_served(front: Victim) -> None:
    response = ask(front, HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert response.startswith(b"HTTP/1.1 200")
