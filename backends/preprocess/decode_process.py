"""One process that decodes and tiles images, as its owner sees it: restarted when it crashes, hangs or bloats."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import mmap
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.decode_worker import MAX_MESSAGE_BYTES, WorkerSettings
from preprocess.items import ImageError, ImageFile
from preprocess.tiles import TiledImage

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 2.0
INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")  # others may contain secrets
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class TooCostly:
    """Decoding an image costs more than was allowed."""


class DecodeWorkerError(RuntimeError):
    """A worker process cannot be started: the installation is broken, not an image."""


class DecodeProcess:
    """One worker process and the memory shared with it, which outlives a process that dies.

    Args:
        settings: Of the worker; without the file descriptor.

    Raises:
        DecodeWorkerError: The worker cannot be started.
    """

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
        """Wait until the process can decode.

        Raises:
            DecodeWorkerError: It does not get there.
        """
        if not self._ready and self._receive(START_TIMEOUT_S) is None:
            self._process.kill()
            raise DecodeWorkerError("the image decoder did not start")
        self._ready = True

    def preprocess(
        self, file: ImageFile, max_cost: int | None = None, timeout_s: float = math.inf
    ) -> TiledImage | ImageError | TooCostly:
        """Decode and tile an encoded image or a page.

        Args:
            file: To decode.
            max_cost: In pixels; an image whose decoding costs more is left alone.
            timeout_s: After this the result is of no use.

        Raises:
            DecodeWorkerError: The process died before, and cannot be replaced.
        """
        if self._process.poll() is not None:  # died between images
            self._restart()
        self.await_ready()
        self._memory[: len(file.data)] = file.data
        reply = self._ask(file, max_cost, min(timeout_s, self._settings.time_limit_s))
        if reply is None:
            self._restart()
            if file.page:
                return ImageError("pdf_invalid", "rendering the PDF failed or took too long")
            return ImageError("image_invalid", "decoding the image failed or took too long")
        if "cost" in reply:
            return TooCostly()
        if "code" in reply:
            return ImageError(reply["code"], reply["message"])
        tiling = self._settings.tiling
        shape = reply["tiles"] * tiling.rows_per_tile, tiling.values_per_row
        patches = np.frombuffer(self._memory, np.uint8, math.prod(shape)).reshape(shape).copy()
        return TiledImage(patches, reply["tiles"], reply["pages"])

    def _ask(self, file: ImageFile, max_cost: int | None, timeout_s: float) -> dict[str, Any] | None:
        question = {"bytes": len(file.data), "page": file.page, "max_cost": max_cost}
        try:
            self._send(json.dumps(question).encode())
        except ConnectionError:
            return None
        return self._receive(timeout_s)

    def _send(self, message: bytes) -> None:
        self._control.send(message, socket.MSG_NOSIGNAL)  # Triton's stub may not ignore SIGPIPE

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait for a message; return None if the worker dies or the time runs out."""
        self._control.settimeout(max(timeout_s, 0.001))  # 0 would mean: do not wait at all
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
        """End the process."""
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
