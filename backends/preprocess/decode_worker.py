"""The process that decodes and tiles, where a crash harms nobody: started and spoken to by `preprocess.decode_pool`.

It talks over the socket that is its standard input, a JSON message a packet. Images and patches themselves lie in
memory shared with the pool. The first message it gets is its `WorkerSettings`; it answers `{}` when it is ready. Then,
for each image, it gets the number of its bytes, and answers `{"tiles": n}` or `{"code": ..., "message": ...}`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from preprocess.decode import decode_image
from preprocess.images import VALUES_PER_ROW, ImageError, ImageLimits, Tiling
from preprocess.tiles import cut_tiles

MAX_MESSAGE_BYTES = 4096

NICENESS = 5
"""A third of the processor time of the other steps, where there is not enough for all: texts go before images."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told at its start.

    Attributes:
        memory_fd: File descriptor of the memory shared with the pool, inherited.
        time_limit_s: For one image; a worker that the pool no longer watches ends itself after twice that.
        memory_limit_bytes: Of address space, the interpreter included.
        tiling: How images are cut.
        limits: What images may measure.
    """

    memory_fd: int
    time_limit_s: float
    memory_limit_bytes: int
    tiling: Tiling
    limits: ImageLimits

    @property
    def memory_bytes(self) -> int:
        """Size of the shared memory: an encoded image, then its patches in the same place."""
        return max(self.limits.max_bytes, self.tiling.max_rows * VALUES_PER_ROW)

    def to_json(self) -> bytes:
        """Write the settings as a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, message: bytes) -> WorkerSettings:
        """Read the settings from a message."""
        fields = json.loads(message)
        return cls(**{**fields, "tiling": Tiling(**fields["tiling"]), "limits": ImageLimits(**fields["limits"])})


def serve_images(control: socket.socket) -> None:
    """Decode and tile image after image until the pool hangs up."""
    settings = WorkerSettings.from_json(control.recv(MAX_MESSAGE_BYTES))
    _limit_process(settings)
    memory = mmap.mmap(settings.memory_fd, settings.memory_bytes)
    control.send(b"{}")
    while message := control.recv(MAX_MESSAGE_BYTES):
        signal.setitimer(signal.ITIMER_REAL, 2 * settings.time_limit_s)
        reply = _tile_image(memory, json.loads(message), settings)
        signal.setitimer(signal.ITIMER_REAL, 0)
        control.send(json.dumps(reply).encode())


def _limit_process(settings: WorkerSettings) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit_bytes, settings.memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # where memory runs out, let the kernel take this process, not Triton
        Path("/proc/self/oom_score_adj").write_text("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's affair
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, in the middle of a decoder too


def _tile_image(memory: mmap.mmap, image_bytes: int, settings: WorkerSettings) -> dict[str, object]:
    try:
        image = decode_image(memory[:image_bytes], settings.limits)
        rows = np.frombuffer(memory, np.uint8, settings.tiling.max_rows * VALUES_PER_ROW).reshape(-1, VALUES_PER_ROW)
        return {"tiles": cut_tiles(image, settings.tiling, out=rows).tiles}
    except ImageError as error:
        return {"code": error.code, "message": error.message}
    except MemoryError:
        return {"code": "image_invalid", "message": "resizing the image takes too much memory"}


if __name__ == "__main__":
    with socket.socket(fileno=sys.stdin.fileno()) as pool_end:
        serve_images(pool_end)
