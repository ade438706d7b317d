"""Resources of the sections: exports, the running service and contenders, created when first used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import peers
from bench.contenders import HttpContender, TritonContender
from bench.engine import EngineLoop
from bench.load_generators import prepare_perf_analyzer
from bench.servers import Service, run_gateway_alone, run_service
from bench.settings import BenchSettings
from bench.workloads import SHORT, TEXT_KINDS, TextWriter, make_page_files, make_page_workloads
from export.progress import Progress
from export.sources import resolve
from launcher.models import prepare_repository, run_module
from launcher.settings import STAND_IN, TEXT_MODEL, LauncherSettings

# Prefix of the names of the text model's steps in Triton.
TEXT_SLUG = "all_minilm_l6_v2"


class Workbench:
    """Settings of one run and everything it has started, which is stopped when the block ends.

    Args:
        settings: Settings of the run.
    """

    def __init__(self, settings: BenchSettings) -> None:
        self.settings = settings
        self._started = ExitStack()

    def __enter__(self) -> Self:
        """Return the workbench."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what was started."""
        self._started.close()

    @cached_property
    def repository(self) -> Path:
        """Freshly exported model repository with all-MiniLM-L6-v2 and the flagship's stand-in.

        The stand-in has the flagship's geometry and small random weights: the cost of everything around the graphs
        shows.
        """
        if not self.settings.reuse:
            shutil.rmtree(self.settings.repository, ignore_errors=True)
        prepare_repository(LauncherSettings(build_dir=self.settings.build_dir, repository=None, model=None))
        return self.settings.repository

    @cached_property
    def checkpoint(self) -> Path:
        """Folder of the text model's published files."""
        return resolve(TEXT_MODEL, None, Progress()).folder

    @cached_property
    def graph(self) -> Path:
        """The graph of the text model that Triton serves."""
        return self.repository / f"{TEXT_SLUG}_embedder" / "1" / "model.onnx"

    @cached_property
    def int8_graph(self) -> Path:
        """Freshly exported int8 graph of the text model, in a separate repository."""
        repository = self.settings.build_dir / "int8_repository"
        graph = repository / f"{TEXT_SLUG}_embedder" / "1" / "model.onnx"
        if not (self.settings.reuse and graph.exists()):
            shutil.rmtree(repository, ignore_errors=True)
            run_module("export", TEXT_MODEL, "--precision", "int8", "--repository", str(repository))
        return graph

    @cached_property
    def tokenizer_path(self) -> Path:
        """Tokenizer of the text model."""
        return self.repository / f"{TEXT_SLUG}_preprocess_text" / "1" / "tokenizer.json"

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Texts of all workloads."""
        writer = TextWriter(self.tokenizer_path)
        return {name: writer.write(kind) for name, kind in TEXT_KINDS.items()}

    @cached_property
    def pages(self) -> dict[str, list[str]]:
        """Items of all workloads with pages."""
        return make_page_workloads(make_page_files(), self.texts[SHORT])

    @cached_property
    def service(self) -> Service:
        """The running service."""
        assert self.repository  # noqa: S101 - exported before it is served
        return self._started.enter_context(run_service(self.settings))

    @cached_property
    def engine(self) -> EngineLoop:
        """Engine limit of the text model."""
        return EngineLoop(self.graph, self.tokenizer_path, self.texts, self.settings.seconds)

    @cached_property
    def triton(self) -> TritonContender:
        """The text ensemble without the gateway, over gRPC."""
        tool = prepare_perf_analyzer(self.settings.build_dir / "perf_analyzer")
        return TritonContender(tool, f"{TEXT_SLUG}_text", self.service, self.texts, self.settings.seconds)

    @cached_property
    def gateway(self) -> HttpContender:
        """The service over HTTP."""
        return self.make_gateway("gateway")

    def make_gateway(self, name: str, **fields: object) -> HttpContender:
        """Return the service over HTTP, asked for the text model with additional request fields."""
        return HttpContender(name, self.service, self.texts, self.settings, {"model": TEXT_MODEL, **fields})

    def make_page_gateway(self, name: str) -> HttpContender:
        """Return the service over HTTP, asked for the model that takes pages and texts."""
        return HttpContender(name, self.service, self.texts | self.pages, self.settings, {"model": STAND_IN})

    @contextmanager
    def run_gateway_alone(self) -> Iterator[HttpContender]:
        """Serve through the gateway in front of an engine that responds immediately, until the block ends."""
        assert self.repository  # noqa: S101 - the engine reads its configurations
        with run_gateway_alone(self.settings) as server:
            yield HttpContender("gateway alone", server, self.texts, self.settings, {"model": TEXT_MODEL})

    @contextmanager
    def run_peer(self, peer: peers.Peer) -> Iterator[HttpContender]:
        """Serve the same weights by a peer until the block ends."""
        with peers.run_peer(peer, self.checkpoint, self.settings) as server:
            yield HttpContender(peer.name, server, self.texts, self.settings, {"model": peers.MODEL_NAME})
