"""What attackers send: requests that once stopped the service, or starved its other clients."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from launcher.settings import STAND_IN, TEXT_MODEL

MAX_P99_S = 1.0
"""For the canaries beside what only the gateway's event loop and the tokenizer see."""
MAX_P99_OF_SHARES_S = 2.0
"""Beside what takes turns with them: images, and requests with many items."""

HOST_OF_IMAGES = "198.41.0.4"
"""A public address, so that the gateway connects to it; `bench.attacks` gives it to a loopback of its own, and names it
as the name server."""
HOST_PORT = 80
NAMES_PORT = 53

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    Attributes:
        name: In the table.
        clients: Connections at once.
        write: Returns what each of them sends, in pieces.
        reads: Whether they read the response, and send again; otherwise they hold their connections.
        max_p99_s: What 99 of 100 canaries may take, in seconds.
    """

    name: str
    clients: int
    write: Callable[[], Sequence[bytes]]
    reads: bool = True
    max_p99_s: float = MAX_P99_S


def write_post(body: bytes) -> Sequence[bytes]:
    """Return a request in pieces."""
    return [HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body]


def write_json(**fields: Any) -> Sequence[bytes]:
    """Return an embeddings request; of the text model, unless it names another."""
    return write_post(json.dumps({"model": TEXT_MODEL} | fields, separators=(",", ":")).encode())


def attack_with_images(name: str, clients: int, draw_all: Callable[[], Sequence[bytes]]) -> Attack:
    """Return an attack with embeddings requests for images."""

    def write() -> Sequence[bytes]:
        urls = ["data:image/png;base64," + base64.b64encode(file).decode() for file in draw_all()]
        return write_json(model=STAND_IN, input=urls)  # whose content counts, not the type in the URL

    return Attack(name, clients, write, True, MAX_P99_OF_SHARES_S)


def post_unfinished(announced: int, sent: int) -> Sequence[bytes]:
    """Return a request whose body is shorter than it says."""
    return [HEAD + b"Content-Length: %d\r\n\r\n" % announced, *[b"a" * MEGABYTE] * (sent // MEGABYTE)]


def encode_image(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return an encoded image."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def draw(width: int, height: int, image_format: str, sigma: float) -> bytes:
    """Return an encoded image: the more noise, the longer it takes to decode, and the larger is the file."""
    return encode_image(Image.effect_noise((width, height), sigma).convert("RGB"), image_format)


def make_webp_bomb() -> bytes:
    """Return 40 bytes that become 134 million pixels."""
    return encode_image(Image.new("RGB", (16383, 8192)), "WEBP", lossless=True, quality=0, method=0)


def make_jpeg_of_scans(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    jpeg = encode_image(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    (length,) = struct.unpack_from(">H", jpeg, last + 2)
    return jpeg[:-2] + jpeg[last : last + 2 + length] * scans + jpeg[-2:]


def serve_hostile_images(start: bytes, piece: bytes) -> Sequence[bytes]:
    """Start a server that never ends a response, and return a request for an image from it."""

    def answer(connection: socket.socket) -> None:
        try:
            with connection:
                connection.recv(65536)
                connection.sendall(start)
                while True:
                    connection.sendall(piece * 1000)
        except OSError:
            return

    def accept(listener: socket.socket) -> None:
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server((HOST_OF_IMAGES, HOST_PORT))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    return write_urls([f"http://{HOST_OF_IMAGES}/{number}.png" for number in range(8)])


def serve_silent_names() -> Sequence[bytes]:
    """Start a name server that never answers, and return a request for images from 24 hosts that only it knows."""
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind((HOST_OF_IMAGES, NAMES_PORT))

    def read() -> None:
        while True:
            server.recv(4096)

    threading.Thread(target=read, daemon=True).start()
    return write_urls([f"http://host-{number}.example.com/a.png" for number in range(24)])


def write_urls(urls: Sequence[str]) -> Sequence[bytes]:
    """Return an embeddings request for images given by URL."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return write_json(model=STAND_IN, input=[{"content": [part]} for part in parts])


BYTE_BY_BYTE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank. "

HEADERS = (
    Attack("100 MB of one header", 1, lambda: [HEAD + b"X: ", *[b"a" * MEGABYTE] * 100]),
    Attack("300 MB of small headers", 1, lambda: [HEAD, *[b"X: a\r\n" * 200_000] * 250]),
    Attack("160 half-open connections", 160, lambda: [HEAD], reads=False),
)
BODIES = (
    Attack("16 clients never read 17 MB", 16, lambda: write_json(input=["a"] * 2048), False, MAX_P99_OF_SHARES_S),
    Attack("25 unfinished bodies of 60 MB", 25, lambda: post_unfinished(60 * MEGABYTE, 59 * MEGABYTE), reads=False),
    Attack("10 million strings", 1, lambda: write_post(b'{"input":[' + b'"a",' * 10_000_000 + b'"a"]}')),
    Attack("7 million modalities", 1, lambda: write_post(b'{"modality":[' + b'"text",' * 7_000_000 + b'"text"]}')),
    Attack("4 million keys", 1, lambda: write_post(b"{" + b'"a":1,' * 4_000_000 + b'"b":1}')),
)
TEXTS = (
    Attack("4 MB of exclamation marks", 2, lambda: write_json(input="!" * 4 * MEGABYTE, truncate="END")),
    Attack("a text of 60 MB", 1, lambda: write_json(input=SENTENCE * 900_000, truncate="END")),
    Attack("a word of 6 MB", 1, lambda: write_json(input="a" * 6 * MEGABYTE, truncate="END")),
    Attack("30 million token ids", 1, lambda: write_post(b'{"input":[' + b"1," * 30_000_000 + b"1]}")),
    Attack("2048 inputs of 10,000 token ids", 1, lambda: write_json(input=[[1] * 10_000] * 2048)),
    Attack("4 clients with 2048 texts", 4, lambda: write_json(input=[SENTENCE] * 2048), True, MAX_P99_OF_SHARES_S),
)
SLOW_IMAGES = (
    attack_with_images("24 WebP bombs in a request", 1, lambda: [make_webp_bomb()] * 24),
    attack_with_images("a WebP bomb, 6 clients", 6, lambda: [make_webp_bomb()]),
    attack_with_images("8 JPEGs of 2000 scans", 1, lambda: [make_jpeg_of_scans(2000)] * 8),
    attack_with_images("8 JPEGs of 90 scans, 4 clients", 4, lambda: [make_jpeg_of_scans(90)] * 8),
)
MANY_IMAGES = (
    attack_with_images("4 WebP of 4 MP, 8 clients", 8, lambda: [draw(2000, 2000, "WEBP", 60)] * 4),
    attack_with_images("256 JPEGs of 2 MP, 2 clients", 2, lambda: [draw(1600, 1250, "JPEG", 0)] * 256),
)
URLS = (
    Attack("images in chunks of one byte", 8, lambda: serve_hostile_images(BYTE_BY_BYTE, b"1\r\na\r\n")),
    Attack("endless 100 Continue", 8, lambda: serve_hostile_images(b"", CONTINUE)),
    Attack("24 names that nobody resolves", 8, serve_silent_names),
)
NOTHING = Attack("none, for comparison", 0, list)
ATTACKS = (NOTHING, *HEADERS, *BODIES, *TEXTS, *SLOW_IMAGES, *MANY_IMAGES, *URLS)
