"""How to install and start each peer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders.padded import export_padded
from bench.peers.environment import prepare_environment
from bench.server import Server, free_ports, run_server
from bench.settings import BenchSettings

APP = Path(__file__).with_name("sentence_transformers_app.py")
MODEL_NAME = "minilm"
# Nothing that a peer downloads or reports may fall into its measurement.
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}


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
        prepare_folder: Returns the folder to serve, of a checkpoint; the checkpoint itself if absent.
    """

    name: str
    environment: str
    requirements: Sequence[str]
    command: Sequence[str]
    route: str
    variables: Mapping[str, str] = field(default_factory=dict)
    prepare_folder: Callable[[Path, BenchSettings], Path] | None = None


def add_onnx_graph(checkpoint: Path, settings: BenchSettings) -> Path:
    """Return a copy of a checkpoint with optimum's ONNX export in it.

    A copy made anew each time: infinity writes an optimized graph and a configuration into the folder that it serves.
    """
    folder = settings.build_dir / "peers" / "infinity_optimum_checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder)
    shutil.copy(export_padded(checkpoint, settings.build_dir / "padded"), folder / "model.onnx")
    return folder


INFINITY_REQUIREMENTS = (
    "infinity-emb[server,torch]==0.0.78",
    "torch==2.13.0",
    "transformers==4.48.3",
    "optimum==1.24.0",  # its extra would bring a pyarrow that wants another NumPy
    "onnx==1.19.1",
    "onnxruntime==1.23.2",
    "click<8.2",
)
INFINITY_COMMAND = (
    *("{bin}/infinity_emb", "v2", "--host", "127.0.0.1", "--port", "{port}"),
    *("--model-id", "{folder}", "--served-model-name", MODEL_NAME),
    *("--device", "cpu", "--no-bettertransformer", "--engine"),
)

INFINITY_TORCH = Peer(
    name="infinity torch",
    environment="infinity",
    requirements=INFINITY_REQUIREMENTS,
    command=(*INFINITY_COMMAND, "torch"),
    route="/embeddings",
)
INFINITY_OPTIMUM = Peer(
    name="infinity optimum",
    environment="infinity",
    requirements=INFINITY_REQUIREMENTS,
    command=(*INFINITY_COMMAND, "optimum", "--pooling-method", "mean"),  # this engine does not read `1_Pooling`
    route="/embeddings",
    prepare_folder=add_onnx_graph,
)
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
PEERS = (INFINITY_TORCH, INFINITY_OPTIMUM, SENTENCE_TRANSFORMERS)


@contextmanager
def run_peer(peer: Peer, checkpoint: Path, settings: BenchSettings) -> Iterator[Server]:
    """Serve a checkpoint by a peer until the block ends.

    Args:
        peer: Installed if it is not.
        checkpoint: A folder as sentence-transformers publishes them.
        settings: Where environments and logs go.

    Raises:
        BenchError: It cannot be installed or does not start.
    """
    python = prepare_environment(settings.build_dir / "peers" / peer.environment, peer.requirements)
    folder = peer.prepare_folder(checkpoint, settings) if peer.prepare_folder else checkpoint
    [port] = free_ports(1)
    filling = {"bin": str(python.parent), "folder": str(folder), "port": str(port)}
    command = [word.format(**filling) for word in peer.command]
    environment = os.environ | OFFLINE | {name: value.format(**filling) for name, value in peer.variables.items()}
    url = f"http://127.0.0.1:{port}{peer.route}"
    probe = {"model": MODEL_NAME, "input": ["ready?"]}
    log = settings.build_dir / "logs" / f"{peer.name.replace(' ', '_')}.log"
    with run_server(peer.name, command, environment, url, probe, log) as server:
        yield server
