"""What one client sends, holds open or leaves unread never reaches the others. Most of this stopped the server once."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import orjson
import pytest

from bench.canary import Canary
from tests.gateway.edge.conftest import StartVictim, Victim
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL

CANARY = {"model": TEXT_MODEL.public_id, "input": "a canary"}
P99_S = 5.0  # shorter stalls are measured by `make chaos`: this machine may be busy
BODY = json.dumps(CANARY).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture
def canary(victim: Victim) -> Iterator[Canary]:
    with Canary(victim.url, CANARY) as running:
        yield running
    check(running)


def check(canary: Canary) -> None:
    assert not canary.wrong and not canary.faults
    assert canary.p99_s < P99_S


def connect(victim: Victim) -> socket.socket:
    return socket.create_connection(("127.0.0.1", victim.port), timeout=20)


def send_all(client: socket.socket, data: bytes) -> None:
    """Send until everything is sent or the server closes the connection."""
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def ask(victim: Victim, data: bytes) -> bytes:
    with connect(victim) as client:
        send_all(client, data)
        return read_all(client)


def read_error(response: bytes) -> tuple[int, str]:
    """Return status and message of an error in the documented form."""
    head, _, body = response.partition(b"\r\n\r\n")
    content = orjson.loads(body)
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    assert content["object"] == "error"
    assert content["error"]["code"] == int(head.split()[1])
    return content["error"]["code"], content["message"]


def test_one_endless_header_is_refused(victim: Victim, canary: Canary) -> None:
    with connect(victim) as client:
        client.sendall(HEAD + b"X-Long: ")
        for _ in range(100):
            send_all(client, b"a" * 1_000_000)
        assert read_error(read_all(client)) == (431, "the request's headers are above the limit of 32768 bytes")


def test_many_headers_are_refused(victim: Victim, canary: Canary) -> None:
    many = b"".join(b"X-%d: a\r\n" % number for number in range(200))
    assert read_error(ask(victim, HEAD + many + b"\r\n")) == (431, "the request has more than 100 headers")
    endless = HEAD + b"X: a\r\n" * 5_000_000
    assert read_error(ask(victim, endless))[0] == 431
    assert read_error(ask(victim, b"GET /" + b"a" * 40_000))[0] == 431


def test_a_hundred_headers_are_served(victim: Victim) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 200) for number in range(96))
    response = ask(victim, HEAD + headers + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert response.startswith(b"HTTP/1.1 200")


def test_headers_that_do_not_arrive_are_not_waited_for(victim: Victim, canary: Canary) -> None:
    with connect(victim) as client:
        client.sendall(HEAD)
        assert read_error(read_all(client)) == (408, "the request's headers did not arrive in time")
    with connect(victim) as silent:
        assert read_all(silent) == b""


def test_a_body_that_drips_is_not_waited_for(victim: Victim, canary: Canary) -> None:
    with connect(victim) as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        for _ in range(5):
            send_all(client, b"a")
            time.sleep(0.3)
        assert read_error(read_all(client)) == (408, "the request body did not arrive in time")


def test_an_idle_connection_is_closed(victim: Victim) -> None:
    with connect(victim) as client:
        client.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        response = read_all(client)
    assert response.startswith(b"HTTP/1.1 200")


def test_half_open_connections_keep_out_nobody(start_victim: StartVictim) -> None:
    victim = start_victim(descriptors=128)
    with ExitStack() as stack, Canary(victim.url, CANARY) as canary:
        for _ in range(160):
            client = stack.enter_context(connect(victim))
            client.sendall(HEAD)
            time.sleep(0.005)  # the canary has to send its request before 64 later connections are open
        assert httpx.get(f"{victim.url}/v1/health/live").status_code == 200
        time.sleep(1)
        assert victim.metric("tessera_connections ") <= 64
        assert victim.metric("tessera_refused_connections_total") >= 96
    check(canary)


def test_one_address_has_only_so_many_connections(start_victim: StartVictim) -> None:
    victim = start_victim(GATEWAY_MAX_CONNECTIONS_PER_ADDRESS="3")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(victim))
        with connect(victim) as fourth:
            assert read_error(read_all(fourth)) == (503, "too many connections are open")
    assert httpx.get(f"{victim.url}/v1/health/live").status_code == 200


def test_clients_that_do_not_read_are_dropped(victim: Victim, canary: Canary) -> None:
    body = json.dumps({"model": IMAGE_MODEL.public_id, "input": ["a"] * 500}).encode()  # 20 MB of response
    before = victim.metric('tessera_refused_connections_total{reason="slow reader"}')
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(connect(victim))
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline_s = time.monotonic() + 30
        name = 'tessera_refused_connections_total{reason="slow reader"}'
        while victim.metric(name) < before + 4:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)


def test_a_client_that_reads_slowly_but_steadily_gets_it_all(victim: Victim) -> None:
    body = json.dumps({"model": IMAGE_MODEL.public_id, "input": ["a"] * 20}).encode()
    received = b""
    with connect(victim) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while piece := client.recv(16384):
            received += piece
            time.sleep(0.05)
    assert len(orjson.loads(received.partition(b"\r\n\r\n")[2])["data"]) == 20


def test_unfinished_bodies_hold_only_so_much(victim: Victim, canary: Canary) -> None:
    before = victim.resident_bytes
    refused = 0
    with ExitStack() as stack:
        clients = []
        for _ in range(12):
            client = stack.enter_context(connect(victim))
            send_all(client, HEAD + b"Content-Length: 10000000\r\n\r\n" + b"a" * 3_000_000)
            clients.append(client)
        assert victim.resident_bytes - before < 100_000_000
        for client in clients:
            response = read_all(client)
            refused += response.startswith(b"HTTP/1.1 503")
    assert refused >= 8


def test_a_body_in_chunks_of_one_byte_is_refused(victim: Victim, canary: Canary) -> None:
    response = ask(victim, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1_000_000)
    assert read_error(response) == (400, "the request body is sent in too many small chunks")


def test_a_chunked_body_is_served_and_its_trailer_ignored(victim: Victim) -> None:
    chunks = b"%x\r\n%s\r\n0\r\nContent-Type: text/plain\r\nX-Request-Id: trailer\r\n\r\n" % (len(BODY), BODY)
    response = ask(victim, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert response.startswith(b"HTTP/1.1 200")
    assert b"x-request-id: trailer" not in response


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "the request is not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", "the request must have one Host header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "the request must have one Host header"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "the only supported Transfer-Encoding is chunked"),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "the request is not valid HTTP/1.1"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "the request is not valid HTTP/1.1"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "the request is not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\nHost : a\r\n\r\n", "the request is not valid HTTP/1.1"),
    ],
)
def test_what_is_not_http_gets_the_documented_error(victim: Victim, request_: bytes, message: str) -> None:
    assert read_error(ask(victim, request_)) == (400, message)


def test_stacked_encodings_are_refused(victim: Victim) -> None:
    for encodings in (b"gzip, identity", b"identity\r\nContent-Encoding: gzip", b"gzip\r\nContent-Encoding: identity"):
        head = HEAD + b"Connection: close\r\nContent-Encoding: " + encodings
        assert b"HTTP/1.1 415" in ask(victim, head + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)


@pytest.mark.parametrize("pause_s", [0, 0.2])
def test_an_offer_of_http_2_is_declined_and_the_request_served(victim: Victim, pause_s: float) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    with connect(victim) as client:
        for _ in range(2):
            client.sendall(HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(BODY))
            time.sleep(pause_s)
            client.sendall(BODY)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert read_error(ask(victim, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 400


def test_pipelined_requests_are_answered_in_order(victim: Victim) -> None:
    one = b"GET /v1/%s HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /v1/version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    response = ask(victim, one % b"health/live" + one % b"models" + one % b"nothing" + last)
    assert [part.split()[0] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404", b"200"]


def test_a_large_body_after_its_response_is_not_read_for_ever(victim: Victim, canary: Canary) -> None:
    with connect(victim) as client:
        send_all(client, HEAD + b"Content-Length: 900000000\r\n\r\n")
        for _ in range(200):
            send_all(client, b"a" * 1_000_000)
        response = read_all(client)
    assert response == b"" or response.startswith(b"HTTP/1.1 413")
