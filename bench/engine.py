"""The engine limit: tokenizer and ONNX Runtime in a bare loop, with nothing served.

The loop runs the very graph that Triton serves, or the usual padded export of the same weights.
"""

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

# Candidates from which the loop picks the fastest.
BATCH_SIZES = (8, 16, 32, 64)
CORES = len(os.sched_getaffinity(0))
# Length of a trial run, as a share of a measurement.
TRIAL_SHARE = 0.25

# Inputs of a graph by tensor name.
Feeds = Mapping[str, npt.NDArray[Any]]

# All cores on one run, sleeping or spinning while they wait; or one single-threaded run per core.
Threading = Literal["sleeping", "spinning", "single"]


class Layout(Protocol):
    """How sequences of token ids are laid out for a graph."""

    def make_feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return the graph's inputs."""

    def read_embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return embeddings (n, D) from the graph's output."""


class PackedLayout:
    """Sequences end to end, as `docs/contract.md` describes; the graph pools."""

    def make_feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return `input_ids` (T,) and `sequence_lengths` (n,)."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int32)
        ids = np.fromiter(chain.from_iterable(sequences), np.int64, count=int(lengths.sum()))
        return {"input_ids": ids, "sequence_lengths": lengths}

    def read_embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return the graph's output."""
        return output


class PaddedLayout:
    """Sequences padded to the longest, with an attention mask; pooled outside the graph."""

    def make_feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return `input_ids`, `attention_mask` and `token_type_ids`, each (n, longest)."""
        shape = (len(sequences), max(map(len, sequences)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}

    def read_embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return the normalised mean over the unmasked tokens (n, D) of hidden states (n, longest, D)."""
        mask = feeds["attention_mask"].astype(np.float32)
        pooled = np.matmul(mask[:, None, :], output)[:, 0]
        unit: npt.NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit


def export_padded(checkpoint: Path, folder: Path) -> Path:
    """Export a checkpoint with optimum into a folder, unless the graph is there; return the graph."""
    graph = folder / "model.onnx"
    if not graph.exists():
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint), output=folder, task="feature-extraction", library_name="transformers", do_validation=False
        )
    return graph


class RunConfig(NamedTuple):
    """How the loop runs a graph."""

    batch_size: int
    threading: Threading

    @property
    def parallel_runs(self) -> int:
        """Number of runs at the same time."""
        return CORES if self.threading == "single" else 1


class EngineLoop:
    """Embeds texts with nothing around the engine.

    Args:
        model_path: ONNX graph with one output.
        tokenizer_path: Tokenizer of its model.
        texts: Texts by workload.
        seconds: Length of one measurement.
        layout: Layout of the graph's inputs; packed by default.
        name: Name in tables.
        batch_sizes: Batch sizes to choose from.
    """

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        texts: Mapping[str, Sequence[str]],
        seconds: float,
        layout: Layout | None = None,
        name: str = "engine",
        batch_sizes: Sequence[int] = BATCH_SIZES,
    ) -> None:
        self.name = name
        self._batch_sizes = batch_sizes
        variants: tuple[Threading, ...] = ("sleeping", "spinning", "single")
        self._sessions = {threading: load_graph(model_path, threading) for threading in variants}
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_padding()
        self._texts = texts
        self._seconds = seconds
        self._layout = layout or PackedLayout()
        self._fastest: dict[Load, RunConfig] = {}

    def measure(self, load: Load) -> Sample:
        """Embed batch after batch, in the fastest configuration that the load's clients could fill."""
        if load not in self._fastest:
            self._fastest[load] = self._find_fastest(load)
        return self._run(load.workload, self._fastest[load], self._seconds)

    def embed(self, texts: Sequence[str], threading: Threading = "sleeping") -> npt.NDArray[np.float32]:
        """Return embeddings (n, D)."""
        sequences = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        feeds = self._layout.make_feeds(sequences)
        return self._layout.read_embeddings(self._sessions[threading].run(None, feeds)[0], feeds)

    def _find_fastest(self, load: Load) -> RunConfig:
        configs = list_run_configs(self._batch_sizes, load.items_in_flight)
        seconds = TRIAL_SHARE * self._seconds
        self._run(load.workload, configs[-1], seconds)  # warm up
        rates = {config: self._run(load.workload, config, seconds).items_per_s for config in configs}
        return max(configs, key=lambda config: rates[config])

    def _run(self, workload: str, config: RunConfig, seconds: float) -> Sample:
        started = time.perf_counter()
        cpu_started = time.process_time()
        with ThreadPoolExecutor(config.parallel_runs) as threads:
            deadline = started + seconds
            loops = [threads.submit(self._loop, workload, config, deadline) for _ in range(config.parallel_runs)]
            times = [each for loop in loops for each in loop.result()]
        items = config.batch_size * len(times)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        cpu = {"engine": (time.process_time() - cpu_started) / items * 1e6}
        elapsed = time.perf_counter() - started
        return Sample(items / elapsed, float(p50), float(p99), len(times), cpu_us_per_item=cpu)

    def _loop(self, workload: str, config: RunConfig, deadline: float) -> list[float]:
        """Embed batch after batch until a deadline, at least one; return the seconds that each took."""
        source = cycle(self._texts[workload])
        times: list[float] = []
        now = time.perf_counter()
        while not times or now < deadline:  # a busy machine may start this thread after the deadline
            self.embed(list(islice(source, config.batch_size)), config.threading)
            times.append(time.perf_counter() - now)
            now += times[-1]
        return times


def list_run_configs(batch_sizes: Sequence[int], items_in_flight: int) -> list[RunConfig]:
    """Return the configurations that so many items in flight could fill; each parallel run needs a batch."""
    sizes = sorted({min(size, items_in_flight) for size in batch_sizes})
    configs = [RunConfig(size, threading) for size in sizes for threading in ("sleeping", "spinning")]
    return configs + [RunConfig(size, "single") for size in sizes if size * CORES <= items_in_flight]


def load_graph(path: Path, threading: Threading) -> ort.InferenceSession:
    """Load a graph with the thread settings of one variant."""
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as in the backend: row counts differ from run to run
    options.intra_op_num_threads = int(threading == "single")  # 0: all cores
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threading == "spinning")))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
