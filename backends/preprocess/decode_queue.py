"""Which image is decoded next: requests take turns, and images that take long leave a worker to the others."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from preprocess.items import ExpiredError, ImageError, ImageFile
from preprocess.tiles import TiledImage

TileResult = TiledImage | ImageError


@dataclass
class DecodeJob:
    """One file of a request.

    Attributes:
        batch: The files of its request.
        index: Its position among them.
        file: To decode.
        is_heavy: Whether decoding may take long, which is known of a page at once, and of an image from its header.
    """

    batch: DecodeBatch
    index: int
    file: ImageFile
    is_heavy: bool


class QueueClosedError(RuntimeError):
    """The queue is closed."""


class DecodeBatch:
    """The files of one request, and what becomes of them.

    Args:
        files: To decode.
        deadline_s: When the result is of no more use, on the clock of `time.monotonic`.

    Attributes:
        future: For each file its tiles, or its error; raises what `fail` was given.
        waiting: The files that no worker has taken. Guarded by the queue.
    """

    def __init__(self, files: Sequence[ImageFile], deadline_s: float = math.inf) -> None:
        self.deadline_s = deadline_s
        self.future: Future[list[TileResult]] = Future()
        self.waiting = deque(DecodeJob(self, index, file, file.page > 0) for index, file in enumerate(files))
        self._results: dict[int, TileResult] = {}
        self._count = len(files)
        self._lock = threading.Lock()
        self._is_settled = not files
        if self._is_settled:
            self.future.set_result([])

    def is_over(self) -> bool:
        """Return whether there is no use in further results."""
        return self._is_settled or time.monotonic() >= self.deadline_s

    def put(self, index: int, result: TileResult) -> None:
        """Store the result of a file; the last one resolves the future."""
        with self._lock:
            self._results[index] = result
            if self._is_settled or len(self._results) < self._count:
                return
            self._is_settled = True
        self.future.set_result([self._results[index] for index in range(self._count)])

    def fail(self, error: Exception) -> None:
        """Fail as a whole, unless the future is resolved."""
        with self._lock:
            if self._is_settled:
                return
            self._is_settled = True
        self.future.set_exception(error)


class DecodeQueue:
    """The batches that workers take files from, one file of each in turn."""

    def __init__(self) -> None:
        self._batches: deque[DecodeBatch] = deque()
        self._is_closed = False
        self._changed = threading.Condition()

    def add(self, batch: DecodeBatch) -> None:
        """Append a batch to those that take turns."""
        with self._changed:
            is_closed = self._is_closed
            self._batches.append(batch)
            self._changed.notify_all()
        if is_closed:
            batch.fail(QueueClosedError())

    def take(self, *, takes_heavy: bool) -> DecodeJob | None:
        """Wait for a file to decode.

        Args:
            takes_heavy: Whether it may be one that takes long.

        Returns:
            None once the queue is closed.
        """
        while True:
            with self._changed:
                over = self._remove_over()
                job = self._find(takes_heavy)
                if not (job or over or self._is_closed):
                    self._changed.wait()
            for batch in over:  # without the lock: what waits for a batch may take its time
                batch.fail(ExpiredError())
            if job or self._is_closed:
                return job

    def defer(self, job: DecodeJob) -> None:
        """Put a file back that has turned out to take long."""
        job.is_heavy = True
        with self._changed:
            job.batch.waiting.append(job)
            if job.batch not in self._batches:
                self._batches.append(job.batch)
            self._changed.notify_all()

    def close(self) -> None:
        """Fail what waits, and let the workers go."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._batches)
            self._changed.notify_all()
        for batch in waiting:
            batch.fail(QueueClosedError())

    def _remove_over(self) -> list[DecodeBatch]:
        over = [batch for batch in self._batches if batch.is_over()]
        for batch in over:
            self._batches.remove(batch)
            batch.waiting.clear()
        return over

    def _find(self, takes_heavy: bool) -> DecodeJob | None:
        """Remove and return the next file; its batch goes to the end of the line."""
        for batch in self._batches:
            job = next((job for job in batch.waiting if takes_heavy or not job.is_heavy), None)
            if job is None:
                continue
            batch.waiting.remove(job)
            self._batches.remove(batch)
            if batch.waiting:
                self._batches.append(batch)
            return job
        return None
