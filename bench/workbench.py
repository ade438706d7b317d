"""What the sections work with: exports, the running service and contenders, made when first asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType

from bench.contenders.engine import EngineLoop
from bench.contenders.http import HttpContender
from bench.contenders.triton import TritonContender
from bench.gateway_alone import run_gateway_alone
from bench.pages import page_files, page_workloads
from bench.peers.servers import MODEL_NAME as PEER_MODEL_NAME
from bench.peers.servers import Peer, run_peer
from bench.perf_analyzer import prepare_perf_analyzer
from bench.processes import Label
from bench.server import Server
from bench.service import Service, name_process, run_service
from bench.settings import BenchSettings
from bench.workloads import SHORT, TEXT_KINDS, TextWriter
from export.progress import Progress
from export.sources import resolve
from launcher.models import prepare_repository, run_module
from launcher.settings import STAND_IN, TEXT_MODEL, LauncherSettings

TEXT_SLUG = "all_minilm_l6_v2"


class Workbench:
    """One run's settings and everything that it has started; all of it ends with the block."""

    def __init__(self, settings: BenchSettings) -> None:
        """Start nothing yet."""
        self.settings = settings
        self.started = ExitStack()

    def __enter__(self) -> Workbench:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started."""
        self.started.close()

    @cached_property
    def repository(self) -> Path:
        """The model repository, with all-MiniLM-L6-v2 and the flagship's stand-in in it, exported anew.

        The stand-in has the flagship's geometry and small random weights, so that what goes on around the graphs shows.
        """
        if not self.settings.reuse:
            shutil.rmtree(self.settings.repository, ignore_errors=True)
        prepare_repository(LauncherSettings(build_dir=self.settings.build_dir, repository=None, model=None))
        return self.settings.repository

    @cached_property
    def service(self) -> Service:
        """The running service."""
        assert self.repository  # noqa: S101 - exported before it is served
        return self.started.enter_context(run_service(self.settings))

    @cached_property
    def tokenizer_path(self) -> Path:
        """The text model's tokenizer."""
        return self.repository / f"{TEXT_SLUG}_preprocess_text" / "1" / "tokenizer.json"

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """All workloads of texts."""
        writer = TextWriter(self.tokenizer_path)
        return {name: writer.write(kind) for name, kind in TEXT_KINDS.items()}

    @cached_property
    def pages(self) -> dict[str, list[str]]:
        """All workloads with pages in them."""
        return page_workloads(page_files(), self.texts[SHORT])

    @cached_property
    def checkpoint(self) -> Path:
        """The folder of the text model's published files."""
        return resolve(TEXT_MODEL, None, Progress()).folder

    @cached_property
    def graph(self) -> Path:
        """The very graph of the text model that Triton serves."""
        return self.repository / f"{TEXT_SLUG}_embedder" / "1" / "model.onnx"

    @cached_property
    def int8_graph(self) -> Path:
        """The text model's graph in int8, exported anew into a repository of its own."""
        repository = self.settings.build_dir / "int8_repository"
        graph = repository / f"{TEXT_SLUG}_embedder" / "1" / "model.onnx"
        if not (self.settings.reuse and graph.exists()):
            shutil.rmtree(repository, ignore_errors=True)
            run_module("export", TEXT_MODEL, "--precision", "int8", "--repository", str(repository))
        return graph

    @cached_property
    def engine(self) -> EngineLoop:
        """The engine limit of the text model."""
        return EngineLoop(self.graph, self.tokenizer_path, self.texts, self.settings.seconds)

    @cached_property
    def triton(self) -> TritonContender:
        """The text ensemble without the gateway, under load by gRPC."""
        tool = prepare_perf_analyzer(self.settings.build_dir / "perf_analyzer")
        return TritonContender(tool, f"{TEXT_SLUG}_text", self.service, self.texts, self.settings.seconds)

    @cached_property
    def gateway(self) -> HttpContender:
        """The service under load by HTTP."""
        return self.make_gateway("gateway")

    @contextmanager
    def run_peer(self, peer: Peer) -> Iterator[HttpContender]:
        """Serve the same weights by a peer until the block ends."""
        with run_peer(peer, self.checkpoint, self.settings) as server:
            yield self._make_contender(peer.name, server, lambda _: peer.name, self.texts, {"model": PEER_MODEL_NAME})

    @contextmanager
    def run_gateway_alone(self) -> Iterator[HttpContender]:
        """Serve by the gateway in front of an engine that answers at once, until the block ends."""
        with run_gateway_alone(self.repository, self.settings) as server:
            yield self._make_contender("gateway alone", server, lambda _: "gateway", self.texts, {"model": TEXT_MODEL})

    def make_gateway(self, name: str, **fields: object) -> HttpContender:
        """Return the service under load by requests for the text model that carry more fields."""
        return self._make_contender(name, self.service, name_process, self.texts, {"model": TEXT_MODEL, **fields})

    def make_page_gateway(self, name: str) -> HttpContender:
        """Return the service under load by requests for the model that takes pages and texts."""
        return self._make_contender(name, self.service, name_process, self.texts | self.pages, {"model": STAND_IN})

    def _make_contender(
        self,
        name: str,
        server: Server | Service,
        label: Label,
        items: Mapping[str, Sequence[str]],
        fields: Mapping[str, object],
    ) -> HttpContender:
        return HttpContender(name, server.url, server.pid, label, items, self.settings, fields)
