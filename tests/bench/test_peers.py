from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench import peers
from bench.peers import APP, PEERS, Peer, run_peer
from bench.settings import BenchSettings


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_sends_no_telemetry(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[Mapping[str, str]] = []

    @contextmanager
    def run_server(name: str, command: object, environment: Mapping[str, str], *rest: object) -> Iterator[None]:
        environments.append(environment)
        yield

    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.setattr(peers, "run_server", run_server)
    monkeypatch.setattr(peers, "prepare_environment", lambda folder, requirements: tmp_path / "bin" / "python")
    with run_peer(replace(peer, prepare_folder=None), tmp_path, BenchSettings(build_dir=tmp_path)):
        assert [environment["ORT_DISABLE_TELEMETRY"] for environment in environments] == ["1"]


def test_modules_of_the_benchmark_do_not_shadow_those_of_a_peer() -> None:
    assert [path.name for path in APP.parent.glob("*.py")] == [APP.name]
