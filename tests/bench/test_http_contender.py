from pathlib import Path

import pytest

from bench.contenders import http
from bench.contenders.http import HttpContender
from bench.errors import LoadFailedError
from bench.results import Load
from bench.settings import BenchSettings
from bench.wrk import WrkReport

LOAD = Load("texts", 1, 16)


@pytest.fixture
def contender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HttpContender:
    monkeypatch.setattr(http, "processor_seconds", lambda pid, label: {"server": 0.0})
    monkeypatch.setattr(http, "IDLE_POLL_S", 0.0)
    settings = BenchSettings(seconds=1, waves=4, build_dir=tmp_path)
    return HttpContender("server", "http://127.0.0.1:9", 0, lambda _: "server", {"texts": ["a"]}, settings, {})


def serve(monkeypatch: pytest.MonkeyPatch, *rates: float) -> list[float]:
    """Let wrk's runs see so many answers a second, the last for all that follow; return their lengths as they come."""
    lengths: list[float] = []

    def run_wrk(url: str, bodies: Path, concurrency: int, seconds: float) -> WrkReport:
        lengths.append(seconds)
        requests = int(rates[min(len(lengths), len(rates)) - 1] * seconds)
        return WrkReport(requests, seconds, 1.0, 2.0, 1.0, 0, 0)

    monkeypatch.setattr(http, "run_wrk", run_wrk)
    return lengths


def test_a_round_lasts_until_every_client_has_had_several_answers(
    contender: HttpContender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = serve(monkeypatch, 1, 4, 4)  # a first answer alone says nothing
    assert contender.measure(LOAD).requests == 64
    assert lengths == [1, 2, 4, 16]


def test_a_round_that_falls_short_is_repeated_longer(contender: HttpContender, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = serve(monkeypatch, 16, 4)
    assert contender.measure(LOAD).requests >= 2 * 16
    assert lengths == [1, 4, 8]


def test_a_server_without_answers_is_given_up(contender: HttpContender, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, 0)
    with pytest.raises(LoadFailedError, match="too few answers"):
        contender.measure(LOAD)
