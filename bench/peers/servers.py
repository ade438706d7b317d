"""How to install and start each peer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.environment import prepare_environment
from bench.server import Server, free_ports, run_server
from bench.settings import BenchSettings

APP = Path(__file__).with_name("sentence_transformers_app.py")
MODEL_NAME = "minilm"


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: What tables call it.
        environment: Folder name of its virtual environment; peers may share one.
        requirements: What that holds.
        command: How it starts; `{bin}`, `{folder}` and `{port}` are filled in.
        route: Where it takes embeddings requests.
        variables: More environment variables, filled in likewise.
    """

    name: str
    environment: str
    requirements: Sequence[str]
    command: Sequence[str]
    route: str
    variables: Mapping[str, str] = field(default_factory=dict)


INFINITY_REQUIREMENTS = (
    "infinity-emb[server,torch]==0.0.78",
    "torch==2.13.0",
    "transformers==4.48.3",
    "optimum==1.24.0",  # its extra would bring a pyarrow that wants another NumPy
    "onnxruntime==1.23.2",
    "click<8.2",
)
INFINITY_COMMAND = (
    *("{bin}/infinity_emb", "v2", "--host", "127.0.0.1", "--port", "{port}"),
    *("--model-id", "{folder}", "--served-model-name", MODEL_NAME),
    *("--device", "cpu", "--no-bettertransformer", "--engine"),
)

INFINITY = Peer("infinity", "infinity", INFINITY_REQUIREMENTS, (*INFINITY_COMMAND, "torch"), "/embeddings")
SENTENCE_TRANSFORMERS = Peer(
    name="sentence-transformers",
    environment="sentence_transformers",
    requirements=(
        "sentence-transformers==5.1.2",
        "torch==2.13.0",
        "transformers==4.57.6",
        "fastapi==0.165.0",
        "uvicorn[standard]==0.54.0",
    ),
    command=("{bin}/uvicorn", "--app-dir", str(APP.parent), APP.stem + ":app", "--port", "{port}", "--no-access-log"),
    route="/v1/embeddings",
    variables={"MODEL_FOLDER": "{folder}"},
)
PEERS = (INFINITY, SENTENCE_TRANSFORMERS)


@contextmanager
def run_peer(peer: Peer, folder: Path, settings: BenchSettings) -> Iterator[Server]:
    """Serve a checkpoint by a peer until the block ends.

    Args:
        peer: Installed if it is not.
        folder: A sentence-transformers checkpoint.
        settings: Where environments and logs go.

    Raises:
        BenchError: It cannot be installed or does not start.
    """
    python = prepare_environment(settings.build_dir / "peers" / peer.environment, peer.requirements)
    [port] = free_ports(1)
    filling = {"bin": str(python.parent), "folder": str(folder), "port": str(port)}
    command = [word.format(**filling) for word in peer.command]
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment = os.environ | offline | {name: value.format(**filling) for name, value in peer.variables.items()}
    url = f"http://127.0.0.1:{port}{peer.route}"
    probe = {"model": MODEL_NAME, "input": ["ready?"]}
    log = settings.build_dir / "logs" / f"{peer.name}.log"
    with run_server(peer.name, command, environment, url, probe, log) as server:
        yield server
