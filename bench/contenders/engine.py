"""The engine limit: tokenizer and ONNX Runtime in a bare loop over the very graph that Triton serves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any, Protocol

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
        options = ort.SessionOptions()
        options.enable_mem_pattern = False  # as the backend has it: row counts differ from run to run
        self._session = ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self._tokenizer.no_padding()
        self._texts = texts
        self._seconds = seconds
        self._form = form or PackedForm()
        self._best: dict[str, int] = {}

    def measure(self, load: Load) -> Sample:
        """Embed batch after batch, each as large as does best among those that the load's clients could fill."""
        return self.run(load.workload, self.choose_batch(load), self._seconds)

    def choose_batch(self, load: Load) -> int:
        """Return the batch size for a load: what is in flight, or the fastest size if more is."""
        if load.items_in_flight < min(self._batch_sizes):
            return load.items_in_flight
        if load.workload not in self._best:
            self.run(load.workload, max(self._batch_sizes), self._seconds / 4)
            rates = {size: self.run(load.workload, size, self._seconds / 4).items_per_s for size in self._batch_sizes}
            self._best[load.workload] = max(rates, key=lambda size: rates[size])
        return min(self._best[load.workload], load.items_in_flight)

    def run(self, workload: str, batch: int, seconds: float) -> Sample:
        """Embed batches of one size for so long."""
        source = cycle(self._texts[workload])
        times: list[float] = []
        started = now = time.perf_counter()
        cpu_started = time.process_time()
        while now - started < seconds:
            self.embed(list(islice(source, batch)))
            times.append(time.perf_counter() - now)
            now += times[-1]
        items = batch * len(times)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        cpu = {"engine": (time.process_time() - cpu_started) / items * 1e6}
        return Sample(items / (now - started), float(p50), float(p99), len(times), cpu_us_per_item=cpu)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return embeddings (n, D)."""
        sequences = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        feeds = self._form.feeds(sequences)
        return self._form.embeddings(self._session.run(None, feeds)[0], feeds)
