"""A pool of processes that decode and tile images: a decoder that crashes, hangs or bloats fails one image only."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Self

from preprocess.decode_process import DecodeProcess, TooCostly
from preprocess.decode_queue import DecodeBatch, DecodeJob, DecodeQueue, TileResult
from preprocess.decode_worker import WorkerSettings
from preprocess.items import ExpiredError, ImageError, ImageFile
from preprocess.lane import NICENESS
from preprocess.settings import ImageLimits, Resizing, Tiling

LIGHT_COST = 16 * 1024 * 1024
"""What decoding may cost, in pixels, on the worker that is kept free of slow images: about a quarter of a second."""

HEAVY_NICENESS = 2 * NICENESS
"""Of the workers that also take slow images, so that quick ones overtake them, as texts overtake all images."""


class DecodePool:
    """Worker processes that decode and tile images, restarted when they die.

    The constructor returns once all workers are ready. Workers end with the pool's process, however that ends.
    Of several workers, one takes only images that are decoded quickly.

    Args:
        workers: Number of processes, and so of images decoded at once.
        time_limit_s: Time limit per image, in seconds, for a worker that does not even use the processor.
        memory_limit_bytes: Limit on a worker's address space, of which the interpreter takes about 200 MB.
        tiling: How the model wants its images cut; by default as the flagship does.
        limits: Limits on images.

    Raises:
        DecodeWorkerError: A worker does not start.
    """

    def __init__(
        self,
        workers: int,
        time_limit_s: float,
        memory_limit_bytes: int,
        tiling: Tiling | Resizing | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        self._limits = limits or ImageLimits()
        settings = WorkerSettings(-1, NICENESS, time_limit_s, memory_limit_bytes, tiling or Tiling(), self._limits)
        self._queue = DecodeQueue()
        self._processes: list[DecodeProcess] = []
        self._threads: list[threading.Thread] = []
        try:
            for number in range(workers):
                niceness = HEAVY_NICENESS if number > 0 else NICENESS
                self._processes.append(DecodeProcess(replace(settings, niceness=niceness)))
            for process in self._processes:
                process.await_ready()
        except BaseException:
            self.close()
            raise
        for number, process in enumerate(self._processes):
            arguments = (process, workers == 1 or number > 0)
            self._threads.append(threading.Thread(target=self._serve, args=arguments, name="decode", daemon=True))
            self._threads[-1].start()

    def submit(self, files: Sequence[ImageFile], deadline_s: float = math.inf) -> Future[list[TileResult]]:
        """Queue encoded images and pages of one request, which takes turns with the others.

        Args:
            files: To decode.
            deadline_s: When the result is of no more use, on the clock of `time.monotonic`.

        Returns:
            For each image its tiles, or its error. Raises `ExpiredError` once the deadline has passed, and
            `DecodeWorkerError` if a dead worker cannot be replaced. Callbacks run in the pool's threads.
        """
        batch = DecodeBatch(files, deadline_s)
        self._queue.add(batch)
        return batch.future

    def preprocess(self, files: Sequence[ImageFile]) -> list[TileResult]:
        """Decode and tile encoded images and pages, and wait for them; errors as those of `submit`."""
        return self.submit(files).result()

    def _serve(self, process: DecodeProcess, takes_heavy: bool) -> None:
        while job := self._queue.take(takes_heavy=takes_heavy):
            try:
                result = self._preprocess(process, job)
            except Exception as error:
                job.batch.fail(error)
            else:
                if isinstance(result, TooCostly):
                    self._queue.defer(job)
                else:
                    job.batch.put(job.index, result)

    def _preprocess(self, process: DecodeProcess, job: DecodeJob) -> TileResult | TooCostly:
        try:
            self._limits.check_bytes(len(job.file.data))
        except ImageError as error:
            return error
        result = process.preprocess(
            job.file, None if job.is_heavy else LIGHT_COST, job.batch.deadline_s - time.monotonic()
        )
        if isinstance(result, ImageError) and job.batch.is_over():
            raise ExpiredError  # it was the deadline that ended the decoder
        return result

    def close(self) -> None:
        """Finish the images in progress, fail those that wait, then end the workers."""
        self._queue.close()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.close()

    def __enter__(self) -> Self:
        """Return the pool, which closes at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()
