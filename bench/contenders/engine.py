"""The engine limit: tokenizer and ONNX Runtime in a bare loop over the very graph that Triton serves."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

from bench.results import Load, Sample

BATCH_SIZES = (8, 16, 32, 64)
"""Tried once, to let the loop run at its best."""


Feeds = Mapping[str, npt.NDArray[Any]]
"""Tensor name to what goes into the graph."""


class Form(Protocol):
    """How sequences of token ids are laid out for a graph."""

    def feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return the graph's inputs."""

    def embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return embeddings (n, D) from the graph's output."""


class PackedForm:
    """Sequences one behind the other, as `docs/contract.md` says; the graph pools."""

    def feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return `input_ids` (T,) and `sequence_lengths` (n,)."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int32)
        ids = np.fromiter(chain.from_iterable(sequences), np.int64, count=int(lengths.sum()))
        return {"input_ids": ids, "sequence_lengths": lengths}

    def embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return what the graph has returned."""
        return output


Threads = Literal["sleeping", "spinning", "single"]
"""All cores on one run, waiting asleep or awake; or one thread for each of as many runs as there are cores."""

CORES = len(os.sched_getaffinity(0))


class Way(NamedTuple):
    """How the loop goes."""

    batch: int
    threads: Threads

    @property
    def runs(self) -> int:
        """Runs side by side."""
        return CORES if self.threads == "single" else 1


class EngineLoop:
    """Embeds texts with nothing around the engine."""

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        texts: Mapping[str, Sequence[str]],
        seconds: float,
        form: Form | None = None,
        name: str = "engine",
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ) -> None:
        """Load the graph.

        Args:
            model_path: An ONNX graph with one output.
            tokenizer_path: The tokenizer of its model.
            texts: By workload.
            seconds: Length of one measurement.
            form: What the graph takes; packed sequences if absent.
            name: What tables call it.
            batch_sizes: Sizes to choose from, by trying them.
        """
        self.name = name
        self._batch_sizes = batch_sizes
        kinds: tuple[Threads, ...] = ("sleeping", "spinning", "single")
        self._sessions = {threads: load_graph(model_path, threads) for threads in kinds}
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_padding()
        self._texts = texts
        self._seconds = seconds
        self._form = form or PackedForm()
        self._best: dict[Load, Way] = {}

    def measure(self, load: Load) -> Sample:
        """Embed batch after batch, in the way that does best of those that the load's clients allow."""
        if load not in self._best:
            self._best[load] = self.find_best_way(load)
        return self.run(load.workload, self._best[load], self._seconds)

    def find_best_way(self, load: Load) -> Way:
        """Try all batch sizes that the clients could fill, with every kind of threads."""
        ways = find_ways(self._batch_sizes, load.items_in_flight)
        self.run(load.workload, ways[-1], self._seconds / 4)
        rates = {way: self.run(load.workload, way, self._seconds / 4).items_per_s for way in ways}
        return max(ways, key=lambda way: rates[way])

    def run(self, workload: str, way: Way, seconds: float) -> Sample:
        """Embed batches of one size for so long."""
        started = time.perf_counter()
        cpu_started = time.process_time()
        with ThreadPoolExecutor(way.runs) as threads:
            loops = [threads.submit(self.loop, workload, way, started + seconds) for _ in range(way.runs)]
            times = [each for loop in loops for each in loop.result()]
        items = way.batch * len(times)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        cpu = {"engine": (time.process_time() - cpu_started) / items * 1e6}
        elapsed = time.perf_counter() - started
        return Sample(items / elapsed, float(p50), float(p99), len(times), cpu_us_per_item=cpu)

    def loop(self, workload: str, way: Way, deadline: float) -> list[float]:
        """Embed batch after batch until a time; return the seconds that each took."""
        source = cycle(self._texts[workload])
        times: list[float] = []
        now = time.perf_counter()
        while now < deadline:
            self.embed(list(islice(source, way.batch)), way.threads)
            times.append(time.perf_counter() - now)
            now += times[-1]
        return times

    def embed(self, texts: Sequence[str], threads: Threads = "sleeping") -> npt.NDArray[np.float32]:
        """Return embeddings (n, D)."""
        sequences = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        feeds = self._form.feeds(sequences)
        return self._form.embeddings(self._sessions[threads].run(None, feeds)[0], feeds)


def find_ways(batch_sizes: Sequence[int], items_in_flight: int) -> list[Way]:
    """Return the ways that clients with so many items in flight could fill; runs side by side all need a batch."""
    sizes = sorted({min(size, items_in_flight) for size in batch_sizes})
    ways = [Way(size, threads) for size in sizes for threads in ("sleeping", "spinning")]
    return ways + [Way(size, "single") for size in sizes if size * CORES <= items_in_flight]


def load_graph(path: Path, threads: Threads) -> ort.InferenceSession:
    """Load a graph for runs of one kind of threads."""
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as the backend has it: row counts differ from run to run
    options.intra_op_num_threads = int(threads == "single")  # 0: all cores
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads == "spinning")))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
