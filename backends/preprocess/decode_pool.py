"""Images decoded and tiled in processes of their own: a decoder that crashes, hangs or swells fails its image only."""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from preprocess.decode_worker import MAX_MESSAGE_BYTES, WorkerSettings
from preprocess.images import VALUES_PER_ROW, ImageError, ImageLimits, TiledImage, Tiling
from preprocess.interpreter import find_interpreter

_LOGGER = logging.getLogger(__name__)
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 2.0
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")  # the rest may hold secrets


class DecodeWorkerError(RuntimeError):
    """No worker process can be started: the installation's fault, not an image's."""


class DecodePool:
    """Worker processes that decode and tile images, restarted when they die.

    Workers end when the pool's process does, however that ends.
    """

    def __init__(
        self,
        workers: int,
        time_limit_s: float,
        memory_limit_bytes: int,
        tiling: Tiling | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        """Start the workers and wait until they are ready.

        Args:
            workers: Number of processes, hence of images decoded at once.
            time_limit_s: For one image.
            memory_limit_bytes: Address space of one worker, about 200 MB of it taken by the interpreter.
            tiling: How the model wants its images cut; the flagship's way if absent.
            limits: What an image may measure.

        Raises:
            DecodeWorkerError: If a worker does not start.
        """
        self._limits = limits or ImageLimits()
        settings = WorkerSettings(-1, time_limit_s, memory_limit_bytes, tiling or Tiling(), self._limits)
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            for _ in range(workers):
                self._workers.append(_Worker(settings))
            for worker in self._workers:
                worker.await_ready()
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def preprocess(self, images: Sequence[bytes]) -> list[TiledImage | ImageError]:
        """Decode and tile images, as many at once as there are workers.

        Args:
            images: Encoded images.

        Returns:
            For each image its tiles, or why it is refused.

        Raises:
            DecodeWorkerError: If a dead worker cannot be replaced.
        """
        return list(self._threads.map(self._preprocess_one, images))

    def _preprocess_one(self, data: bytes) -> TiledImage | ImageError:
        try:
            self._limits.check_bytes(len(data))
        except ImageError as error:
            return error
        worker = self._idle.get()
        try:
            return worker.preprocess(data)
        finally:
            self._idle.put(worker)

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """Wait for the images at work, then end the workers."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> DecodePool:
        """Use the pool, to be closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()


class _Worker:
    """One worker process and the memory shared with it; the memory outlives a process that dies."""

    def __init__(self, settings: WorkerSettings) -> None:
        # Anonymous memory has no name that could be left behind, and does not count against /dev/shm.
        memory_fd = os.memfd_create("decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._settings = replace(settings, memory_fd=memory_fd)
        os.ftruncate(memory_fd, settings.memory_bytes)
        fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(memory_fd, settings.memory_bytes)
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self._control, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._send(self._settings.to_json())
        self._ready = False
        try:
            with worker_end:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [find_interpreter(), "-m", "preprocess.decode_worker"],
                    stdin=worker_end.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env=_list_environment(),
                    pass_fds=[self._settings.memory_fd],
                )
        except OSError as error:
            raise DecodeWorkerError("the image decoder cannot be started") from error

    def await_ready(self) -> None:
        if not self._ready and self._receive(_START_LIMIT_S) is None:
            self._process.kill()
            raise DecodeWorkerError("the image decoder does not start")
        self._ready = True

    def preprocess(self, data: bytes) -> TiledImage | ImageError:
        if self._process.poll() is not None:  # died between images
            self._restart()
        self.await_ready()
        self._memory[: len(data)] = data
        reply = self._ask(len(data))
        if reply is None:
            self._restart()
            return ImageError("image_invalid", "decoding the image fails or takes too long")
        if "code" in reply:
            return ImageError(reply["code"], reply["message"])
        rows = reply["tiles"] * self._settings.tiling.rows_per_tile
        patches = np.frombuffer(self._memory, np.uint8, rows * VALUES_PER_ROW).reshape(rows, VALUES_PER_ROW).copy()
        return TiledImage(patches, reply["tiles"])

    def _ask(self, image_bytes: int) -> dict[str, Any] | None:
        try:
            self._send(json.dumps(image_bytes).encode())
        except ConnectionError:
            return None
        return self._receive(self._settings.time_limit_s)

    def _send(self, message: bytes) -> None:
        self._control.send(message, socket.MSG_NOSIGNAL)  # a program that embeds Python may not ignore SIGPIPE

    def _receive(self, limit_s: float) -> dict[str, Any] | None:
        """Wait for a message: None if the worker dies first, or says nothing in time."""
        self._control.settimeout(limit_s)
        try:
            message = self._control.recv(MAX_MESSAGE_BYTES)
        except (TimeoutError, ConnectionError):
            return None
        reply: dict[str, Any] | None = json.loads(message) if message else None
        return reply

    def _restart(self) -> None:
        self._end_process(patience_s=0)
        _LOGGER.warning("image decode worker %d ended with status %d: restarting", self.pid, self._process.returncode)
        self._start()

    def _end_process(self, patience_s: float) -> None:
        self._control.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self._end_process(patience_s=_STOP_LIMIT_S)
        self._memory.close()
        os.close(self._settings.memory_fd)


def _list_environment() -> dict[str, str]:
    """List a worker's environment variables: this process's libraries and little else."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    package_folder = str(Path(__file__).resolve().parents[1])
    libraries = os.pathsep.join([package_folder, *filter(None, sys.path)])
    return inherited | {"PYTHONPATH": libraries, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
