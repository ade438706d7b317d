"""No process of ours talks to anybody behind its user's back: none looks up a name on its own account."""

import os
import sys
from pathlib import Path

import pytest

from tests.export.tiny_bert import write_tiny_bert
from tests.watched_network import NOT_PERMITTED, run_watched

WATCHED_S = 20
"""ONNX Runtime's first lookup came 9 s after its import, before telemetry was disabled."""

EXPORT = f"""
import sys, time
from export.__main__ import main
status = main(sys.argv[1:])
time.sleep({WATCHED_S})
sys.exit(status)
"""
SERVE = f"""
import sys, time
from pathlib import Path
import httpx
from tests.service import run_service
with run_service(Path(sys.argv[1]), Path(sys.argv[2])) as service:
    body = {{"model": "tiny-bert", "input": "Hello, world"}}
    httpx.post(f"{{service.http_url}}/v1/embeddings", json=body).raise_for_status()
    time.sleep({WATCHED_S})
"""


def run_python(script: str, *arguments: object) -> list[str]:
    """Run a script where lookups are seen, without settings against telemetry of this process; return the names."""
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    status, names = run_watched([sys.executable, "-c", script, *map(str, arguments)], environment)
    if status == NOT_PERMITTED:
        pytest.skip("no network namespace can be created here: whether processes keep to themselves is NOT CHECKED")
    assert status == 0
    return names


def test_a_lookup_is_seen() -> None:
    script = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('tessera.invalid', 80)"
    assert run_python(script) == ["tessera.invalid"]


@pytest.mark.slow
@pytest.mark.triton
def test_neither_an_export_nor_the_service_looks_up_a_name(tmp_path: Path) -> None:
    checkpoint = write_tiny_bert(tmp_path / "tiny-bert")
    assert run_python(EXPORT, checkpoint, "--repository", tmp_path / "repository") == []
    (tmp_path / "work").mkdir()
    assert run_python(SERVE, tmp_path / "repository", tmp_path / "work") == []
