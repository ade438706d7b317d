"""A pool of processes that decode and tile images: a decoder that crashes, hangs or bloats fails one image only."""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from preprocess.decode_worker import MAX_MESSAGE_BYTES, WorkerSettings
from preprocess.items import ImageError, ImageFile
from preprocess.settings import VALUES_PER_ROW, ImageLimits, Tiling
from preprocess.tiles import TiledImage

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 2.0
INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")  # others may contain secrets
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class DecodeWorkerError(RuntimeError):
    """A worker process cannot be started: the installation is broken, not an image."""


class DecodePool:
    """Worker processes that decode and tile images, restarted when they die.

    The constructor returns once all workers are ready. Workers end with the pool's process, however that ends.

    Args:
        workers: Number of processes, and so of images decoded at once.
        time_limit_s: Time limit per image, in seconds.
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
        tiling: Tiling | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
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

    def preprocess(self, files: Sequence[ImageFile]) -> list[TiledImage | ImageError]:
        """Decode and tile encoded images and pages, as many at once as there are workers.

        Returns:
            For each image its tiles, or its error.

        Raises:
            DecodeWorkerError: A dead worker cannot be replaced.
        """
        return list(self._threads.map(self._preprocess_one, files))

    def _preprocess_one(self, file: ImageFile) -> TiledImage | ImageError:
        try:
            self._limits.check_bytes(len(file.data))
        except ImageError as error:
            return error
        worker = self._idle.get()
        try:
            return worker.preprocess(file)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Finish the images in progress, then end the workers."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        """Return the pool, which closes at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()


class _Worker:
    """One worker process and the memory shared with it, which outlives a process that dies."""

    def __init__(self, settings: WorkerSettings) -> None:
        # Anonymous memory cannot be left behind by name, and does not count against /dev/shm.
        memory_fd = os.memfd_create("decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._settings = replace(settings, memory_fd=memory_fd)
        os.ftruncate(memory_fd, settings.memory_bytes)
        fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(memory_fd, settings.memory_bytes)
        self._start()

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
                    env=_worker_environment(),
                    pass_fds=[self._settings.memory_fd],
                )
        except OSError as error:
            raise DecodeWorkerError("the image decoder cannot be started") from error

    def await_ready(self) -> None:
        if not self._ready and self._receive(START_TIMEOUT_S) is None:
            self._process.kill()
            raise DecodeWorkerError("the image decoder did not start")
        self._ready = True

    def preprocess(self, file: ImageFile) -> TiledImage | ImageError:
        if self._process.poll() is not None:  # died between images
            self._restart()
        self.await_ready()
        self._memory[: len(file.data)] = file.data
        reply = self._ask(file)
        if reply is None:
            self._restart()
            if file.page:
                return ImageError("pdf_invalid", "rendering the PDF failed or took too long")
            return ImageError("image_invalid", "decoding the image failed or took too long")
        if "code" in reply:
            return ImageError(reply["code"], reply["message"])
        rows = reply["tiles"] * self._settings.tiling.rows_per_tile
        patches = np.frombuffer(self._memory, np.uint8, rows * VALUES_PER_ROW).reshape(rows, VALUES_PER_ROW).copy()
        return TiledImage(patches, reply["tiles"], reply["pages"])

    def _ask(self, file: ImageFile) -> dict[str, Any] | None:
        try:
            self._send(json.dumps({"bytes": len(file.data), "page": file.page}).encode())
        except ConnectionError:
            return None
        return self._receive(self._settings.time_limit_s)

    def _send(self, message: bytes) -> None:
        self._control.send(message, socket.MSG_NOSIGNAL)  # Triton's stub may not ignore SIGPIPE

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait for a message; return None if the worker dies or the time runs out."""
        self._control.settimeout(timeout_s)
        try:
            message = self._control.recv(MAX_MESSAGE_BYTES)
        except (TimeoutError, ConnectionError):
            return None
        reply: dict[str, Any] | None = json.loads(message) if message else None
        return reply

    def _restart(self) -> None:
        self._end_process(grace_s=0)
        log.warning(
            "restarting image decoder %d, which ended with status %d", self._process.pid, self._process.returncode
        )
        self._start()

    def _end_process(self, grace_s: float) -> None:
        self._control.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self._end_process(grace_s=STOP_TIMEOUT_S)
        self._memory.close()
        os.close(self._settings.memory_fd)


def _worker_environment() -> dict[str, str]:
    """Return a worker's environment variables: this process's libraries and little else."""
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    package_folder = str(Path(__file__).resolve().parents[1])
    libraries = os.pathsep.join([package_folder, *filter(None, sys.path)])
    return inherited | {"PYTHONPATH": libraries, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def find_interpreter(executable: str | None = sys.executable) -> str:
    """Return the absolute path of an interpreter of this Python version.

    Triton's stub embeds Python; `sys.executable` is then empty or the stub itself.

    Args:
        executable: Path that this process reports as its interpreter.

    Raises:
        FileNotFoundError: There is none beside this Python's libraries or on PATH.
    """
    for candidate in _list_candidates(executable):
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f"python{PYTHON_VERSION}, needed to decode images, was not found")


def _list_candidates(executable: str | None) -> Iterator[str]:
    if executable and re.fullmatch(r"python[\d.]*", Path(executable).name):
        yield os.path.abspath(executable)
    for prefix in (sys.prefix, sys.base_prefix):
        yield str(Path(prefix, "bin", f"python{PYTHON_VERSION}"))
    for name in (f"python{PYTHON_VERSION}", "python3"):
        found = shutil.which(name)
        if found:
            yield os.path.abspath(found)
