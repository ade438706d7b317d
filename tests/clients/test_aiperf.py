"""NVIDIA's AIPerf, with the command lines of the page."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.api import Api, assert_same_vectors
from tests.clients.conftest import Install
from tests.clients.page import read_clients
from tests.clients.pending import pending
from tests.clients.runs import write_source
from tests.end_to_end.samples import MINILM, TINY

pytestmark = [pytest.mark.clients, pytest.mark.triton, pytest.mark.slow]

CLIENTS = [client for client in read_clients() if client.package == "aiperf"]
STAND_IN_OF_THE_PAGE = "tiny/llama-nemotron-embed-vl"
OPTIONS = "--ui none --export-level raw --artifact-dir results"


@dataclass(frozen=True)
class Exchange:
    """A request that AIPerf sent, and its response."""

    body: dict[str, Any]
    vectors: list[list[float]]


def run_aiperf(environment: Path, command: str, folder: Path, tiktoken_files: Path) -> list[Exchange]:
    result = subprocess.run(
        ["bash", "-c", f"{command.rstrip()} {OPTIONS}"],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "TIKTOKEN_CACHE_DIR": str(tiktoken_files)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-5000:]
    report = json.loads((folder / "results" / "profile_export_aiperf.json").read_text())
    assert report["request_error_rate"]["avg"] == 0
    return [read_exchange(line) for line in (folder / "results" / "profile_export_raw.jsonl").read_text().splitlines()]


def read_exchange(line: str) -> Exchange:
    record = json.loads(line)
    [response] = record["responses"]
    return Exchange(record["payload"], [entry["embedding"] for entry in json.loads(response["text"])["data"]])


def find_inputs(body: dict[str, Any]) -> list[Any]:
    """Return what a body asks to embed, as the API's `input`."""
    if "input" in body:
        return list(body["input"])
    [message] = body["messages"]
    return [{"content": message["content"]}]


@pytest.mark.parametrize(
    "client", [pytest.param(client, marks=pending(client.name), id=client.name) for client in CLIENTS]
)
def test_aiperf_measures_without_errors(
    client: Any, api: Api, install: Install, tiktoken_files: Path, tmp_path: Path
) -> None:
    command = write_source(client.find_block(), api.url).replace(STAND_IN_OF_THE_PAGE, TINY)
    exchanges = run_aiperf(install("aiperf"), command, tmp_path, tiktoken_files)
    assert len(exchanges) == 10
    model = MINILM if MINILM in command else TINY
    for exchange in exchanges[:3]:
        assert_same_vectors(exchange.vectors, api.embed(model, find_inputs(exchange.body)))
