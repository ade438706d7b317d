"""The process that decodes and tiles images for `preprocess.decode_pool`, so that a crash fails one image only.

Pool and worker exchange JSON messages, one per packet, over the socket that is the worker's standard input; images and
patches are in shared memory. The first message to the worker is its `WorkerSettings`, which it acknowledges with `{}`.
Each further message describes a file, `{"bytes": n, "page": p, "max_cost": c}`, where p is 0 for an image. Its reply is
`{"tiles": n, "pages": m}`, `{"code": ..., "message": ...}`, or `{"cost": n}` if decoding costs more than c, in pixels.

A worker cannot open files, sockets or processes' memory once it is ready: a decoder that an image takes over reaches
nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preprocess.decode import decode_image
from preprocess.items import ImageError
from preprocess.pdf import render_page
from preprocess.resize import cut_patches
from preprocess.settings import ImageLimits, Resizing, Tiling
from preprocess.tiles import cut_tiles

MAX_MESSAGE_BYTES = 4096

OPENING_CPU_S = 2.0
CPU_S_PER_PIXEL = 60e-9
MAX_CPU_S = 20.0
"""A decoder may use four times the processor time that it takes here, about 15 ns per pixel of cost."""

PAGE_COST = 300_000_000
"""Of a page, in pixels: what rendering takes is not known before."""


class TooCostlyError(Exception):
    """Decoding the image costs more than the question allows.

    Attributes:
        cost: In pixels.
    """

    def __init__(self, cost: int) -> None:
        super().__init__(cost)
        self.cost = cost


@dataclass(frozen=True)
class WorkerSettings:
    """The first message to a worker.

    Attributes:
        memory_fd: Inherited file descriptor of the memory shared with the pool.
        niceness: Added to the pool's own.
        time_limit_s: Time limit per image, in seconds. After twice that, an unsupervised worker ends itself. Its
            processor time is limited by what the image's size lets expect.
        memory_limit_bytes: Limit on the worker's address space, including the interpreter.
        tiling: How images are cut into tiles, or resized.
        limits: Limits on images.
    """

    memory_fd: int
    niceness: int
    time_limit_s: float
    memory_limit_bytes: int
    tiling: Tiling | Resizing
    limits: ImageLimits

    @property
    def memory_bytes(self) -> int:
        """Size of the shared memory: it holds an encoded image, then its patches in the same place."""
        return max(self.limits.max_bytes, self.tiling.max_rows * self.tiling.values_per_row)

    def to_json(self) -> bytes:
        """Return the settings as a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, message: bytes) -> WorkerSettings:
        """Read the settings from a message."""
        fields = json.loads(message)
        tiling = (Resizing if "resample" in fields["tiling"] else Tiling)(**fields["tiling"])
        return cls(**{**fields, "tiling": tiling, "limits": ImageLimits(**fields["limits"])})


def serve_images(control: socket.socket) -> None:
    """Decode and tile one image after another until the pool closes the connection."""
    settings = WorkerSettings.from_json(control.recv(MAX_MESSAGE_BYTES))
    _limit_process(settings)
    memory = mmap.mmap(settings.memory_fd, settings.memory_bytes)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # no descriptor beyond those that are open
    control.send(b"{}")
    while message := control.recv(MAX_MESSAGE_BYTES):
        signal.setitimer(signal.ITIMER_REAL, 2 * settings.time_limit_s)
        reply = _tile_file(memory, json.loads(message), settings)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        control.send(json.dumps(reply).encode())


def _limit_process(settings: WorkerSettings) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit_bytes, settings.memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(settings.niceness)
    with contextlib.suppress(OSError):  # out of memory, the kernel should kill this process, not Triton
        Path("/proc/self/oom_score_adj").write_text("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool handles Ctrl-C
    for timer in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(timer, signal.SIG_DFL)  # ends the process, even inside a decoder


def _tile_file(memory: mmap.mmap, question: dict[str, Any], settings: WorkerSettings) -> dict[str, object]:
    try:
        image, pages = _read_file(memory[: question["bytes"]], question["page"], question["max_cost"], settings.limits)
        tiling = settings.tiling
        shape = tiling.max_rows, tiling.values_per_row
        rows = np.frombuffer(memory, np.uint8, math.prod(shape)).reshape(shape)
        tiled = cut_patches(image, tiling, rows) if isinstance(tiling, Resizing) else cut_tiles(image, tiling, rows)
        return {"tiles": tiled.tiles, "pages": pages}
    except TooCostlyError as error:
        return {"cost": error.cost}
    except ImageError as error:
        return {"code": error.code, "message": error.message}
    except MemoryError:
        return {"code": "image_invalid", "message": "resizing the image takes too much memory"}


def _read_file(data: bytes, page: int, max_cost: int | None, limits: ImageLimits) -> tuple[Image.Image, int]:
    """Return the pixels of an image, or of a page, and the number of pages."""

    def begin(cost: int) -> None:
        if max_cost is not None and cost > max_cost:
            raise TooCostlyError(cost)
        limit_cpu_time(cost)

    if page:
        begin(PAGE_COST)
        rendered = render_page(data, page)
        return rendered.image, rendered.pages
    limit_cpu_time(0)
    return decode_image(data, limits, begin), 0


def limit_cpu_time(cost: int) -> None:
    """Let the kernel end this process once it has used the processor for much longer than an image takes.

    Args:
        cost: Of what is left to do, in pixels.
    """
    signal.setitimer(signal.ITIMER_PROF, min(OPENING_CPU_S + cost * CPU_S_PER_PIXEL, MAX_CPU_S))


if __name__ == "__main__":
    with socket.socket(fileno=sys.stdin.fileno()) as pool_end:
        serve_images(pool_end)
