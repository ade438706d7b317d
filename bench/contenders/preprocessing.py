"""A page from its file to patches: our way, and what Pillow alone takes of that."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from bench.results import Load, Sample
from preprocess.decode import decode_image
from preprocess.decode_pool import DecodePool
from preprocess.settings import ImageLimits, Tiling
from preprocess.tiles import choose_grid, cut_tiles

Preprocess = Callable[[bytes], object]
"""Does something to one encoded page."""

TILING = Tiling()


class PageLoop:
    """Preprocesses pages one by one, on one core."""

    def __init__(self, name: str, preprocess: Preprocess, pages: Mapping[str, Sequence[bytes]], seconds: float) -> None:
        """Keep what to do, by workload to what, and for how long."""
        self.name = name
        self._preprocess, self._pages, self._seconds = preprocess, pages, seconds

    def measure(self, load: Load) -> Sample:
        """Go through the pages for a while."""
        pages = self._pages[load.workload]
        times: list[float] = []
        started = time.perf_counter()
        while time.perf_counter() - started < self._seconds or len(times) < len(pages):
            before = time.perf_counter()
            self._preprocess(pages[len(times) % len(pages)])
            times.append(time.perf_counter() - before)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        return Sample(len(times) / sum(times), float(p50), float(p99), len(times))


def decode_and_resize(data: bytes) -> object:
    """Do what nobody who uses Pillow can do without: decode, to RGB, resize to the grid and to the thumbnail."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    grid = choose_grid(image.width, image.height, TILING)
    sizes = [(grid.columns * TILING.tile_size, grid.rows * TILING.tile_size), (TILING.tile_size, TILING.tile_size)]
    return [image.resize(size, Image.Resampling.BICUBIC) for size in sizes]


def decode_and_tile(data: bytes) -> object:
    """Do what a decode worker does, in this process."""
    return cut_tiles(decode_image(data, ImageLimits()), TILING)


def in_worker(pool: DecodePool) -> Preprocess:
    """Return what the service does: the same in a process that may die."""
    return lambda data: pool.preprocess([data])
