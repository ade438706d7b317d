"""What attacks send, and how what they do to others is judged."""

import json
from collections.abc import Mapping, Sequence

import pytest

from bench.attack_list import ATTACKS, URLS
from bench.attacks import Observation


def observe(
    text: Sequence[float], wrong: int = 0, faults: Sequence[str] = (), answers: Mapping[int, int] | None = None
) -> Observation:
    return Observation("an attack", {"text": text, "image": [0.1]}, wrong, faults, answers or {503: 1}, 1.0)


def test_canaries_that_are_slow_wrong_or_refused_are_complained_about() -> None:
    assert observe([0.1, 0.2]).complaint == ""
    assert observe([0.1, 9.0]).complaint == "text above 1 s"
    assert observe([0.1], wrong=1).complaint == "wrong vectors"
    assert observe([0.1], faults=["503 busy"]).complaint == "refused: 503 busy"
    assert observe([0.1], answers={200: 1, 500: 1}).complaint == "it got a 500"


def test_names_of_attacks_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.reads and each not in URLS], ids=lambda a: a.name)
def test_requests_that_are_sent_whole_are_valid_http_and_json(attack) -> None:
    pieces = attack.write()
    head, *bodies = pieces or [b"Content-Length: 2\r\n\r\n", b"{}"]
    assert head.startswith((b"POST /v1/embeddings HTTP/1.1\r\nHost: ", b"Content-Length"))
    if head.endswith(b"\r\n\r\n"):
        [body] = bodies
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert len(body) > 10_000_000 or isinstance(json.loads(body), dict)
