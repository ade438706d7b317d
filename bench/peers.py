"""Peers: other embeddings servers on the same weights, each installed in its own virtual environment."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.engine import export_padded
from bench.errors import InstallError
from bench.servers import Server, find_free_ports, run_server
from bench.settings import BenchSettings

log = logging.getLogger(__name__)

# The only file that runs in a peer's environment; it must not import this project.
APP = Path(__file__).parent / "peer_apps" / "sentence_transformers_app.py"
MODEL_NAME = "minilm"
# Downloads and telemetry must not slow down a measurement.
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
MAX_ERROR_CHARS = 2000


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: Name in tables.
        environment: Folder name of its virtual environment; peers may share one.
        requirements: Requirements to install there.
        command: Start command; `{bin}`, `{folder}` and `{port}` are filled in.
        route: Path of the embeddings route.
        variables: Additional environment variables, filled in the same way.
        prepare_folder: Returns the folder to serve, given a checkpoint; the checkpoint itself if absent.
    """

    name: str
    environment: str
    requirements: Sequence[str]
    command: Sequence[str]
    route: str
    variables: Mapping[str, str] = field(default_factory=dict)
    prepare_folder: Callable[[Path, BenchSettings], Path] | None = None


def add_onnx_graph(checkpoint: Path, settings: BenchSettings) -> Path:
    """Return a copy of a checkpoint that includes optimum's ONNX export.

    The copy is fresh each time: infinity writes an optimised graph and a configuration into the folder it serves.
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
    "optimum==1.24.0",  # its extra would install a pyarrow that needs another NumPy
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
    """Serve a checkpoint by a peer until the block ends; install the peer first if necessary.

    Args:
        peer: Peer to run.
        checkpoint: Folder in the format that sentence-transformers publishes.
        settings: Settings of the run.

    Raises:
        InstallError: The peer cannot be installed.
        ServiceFailedError: The peer does not start.
    """
    python = prepare_environment(settings.build_dir / "peers" / peer.environment, peer.requirements)
    folder = peer.prepare_folder(checkpoint, settings) if peer.prepare_folder else checkpoint
    [port] = find_free_ports(1)
    values = {"bin": str(python.parent), "folder": str(folder), "port": str(port)}
    command = [word.format(**values) for word in peer.command]
    environment = os.environ | OFFLINE | {name: value.format(**values) for name, value in peer.variables.items()}
    url = f"http://127.0.0.1:{port}{peer.route}"
    probe = {"model": MODEL_NAME, "input": ["ready?"]}
    log_path = settings.build_dir / "logs" / f"{peer.name.replace(' ', '_')}.log"
    with run_server(peer.name, command, environment, url, probe, log_path) as server:
        yield server


def prepare_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Return the interpreter of a virtual environment with the requirements, creating it if necessary.

    An environment created from other requirements is replaced.

    Raises:
        InstallError: The environment cannot be created, or pip fails.
    """
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    log.info("installing %s into %s (takes minutes, once)", ", ".join(requirements), folder)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise InstallError(f"{' '.join(command)} failed:\n{finished.stderr.strip()[-MAX_ERROR_CHARS:]}")
    stamp.write_text(wanted)
    return python
