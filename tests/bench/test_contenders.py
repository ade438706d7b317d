from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench import contenders
from bench.contenders import HttpContender, check_same_embeddings, split_items
from bench.errors import BenchError, LoadFailedError
from bench.load_generators import WrkReport, run_wrk
from bench.results import Load
from bench.servers import Server
from bench.settings import BenchSettings

LOAD = Load("texts", 1, 16)


@pytest.fixture
def contender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HttpContender:
    monkeypatch.setattr(Server, "read_cpu_seconds", lambda server: {"server": 0.0})
    monkeypatch.setattr(contenders, "IDLE_POLL_S", 0.0)
    settings = BenchSettings(seconds=1, waves=4, build_dir=tmp_path)
    server = Server("http://127.0.0.1:9", 0, lambda _: "server")
    return HttpContender("server", server, {"texts": ["a"]}, settings, {})


def serve(monkeypatch: pytest.MonkeyPatch, *rates: float) -> list[float]:
    """Give each run of wrk a number of responses per second, the last one from then on; return the runs' lengths."""
    lengths: list[float] = []

    def run_wrk(url: str, bodies: Path, concurrency: int, seconds: float) -> WrkReport:
        lengths.append(seconds)
        requests = int(rates[min(len(lengths), len(rates)) - 1] * seconds)
        return WrkReport(requests, seconds, 1.0, 2.0, 0, 0)

    monkeypatch.setattr(contenders, "run_wrk", run_wrk)
    return lengths


def test_a_round_lasts_until_every_client_has_had_several_responses(
    contender: HttpContender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = serve(monkeypatch, 1, 4, 4)  # the first response alone is not enough
    assert contender.measure(LOAD).requests == 64
    assert lengths == [1, 2, 4, 16]


def test_a_round_that_falls_short_is_repeated_longer(contender: HttpContender, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = serve(monkeypatch, 16, 4)
    assert contender.measure(LOAD).requests >= 2 * 16
    assert lengths == [1, 4, 8]


def test_a_server_that_never_responds_is_an_error(contender: HttpContender, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, 0)
    with pytest.raises(LoadFailedError, match="completes too few requests"):
        contender.measure(LOAD)


def test_a_load_generator_that_is_killed_is_reported_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "wrk"
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(LoadFailedError, match=r"^wrk ended with status -9: $"):
        run_wrk("http://127.0.0.1:9", tmp_path / "bodies", 1, 1.0)


def test_every_request_of_a_load_has_the_same_size() -> None:
    assert split_items(["a", "b", "c", "d", "e"], 2) == [["a", "b"], ["c", "d"]]


class FixedEmbedder:
    def __init__(self, name: str, *values: float) -> None:
        self.name = name
        self.embeddings = np.array([values])

    def embed(self, texts: object) -> npt.NDArray[np.float64]:
        return self.embeddings


def test_embeddings_within_the_tolerance_are_the_same() -> None:
    check_same_embeddings([FixedEmbedder("a", 1.0, 0.0), FixedEmbedder("b", 1.0, 0.0005)], ["text"], 1e-3)


@pytest.mark.parametrize("value", [0.002, float("nan")])
def test_embeddings_that_differ_are_an_error(value: float) -> None:
    with pytest.raises(BenchError, match="embeddings of a and c differ"):
        check_same_embeddings(
            [FixedEmbedder("a", 1.0, 0.0), FixedEmbedder("b", 1.0, 0.0), FixedEmbedder("c", 1.0, value)], ["text"], 1e-3
        )
